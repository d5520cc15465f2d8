"""Runs in the order of the paper, and what tells apart those of one cell."""

from dataclasses import dataclass, field

from gpe.report.grouping import grouped, networks_of, recipe, told_apart, with_variants


@dataclass(frozen=True)
class Paper:
    method: str
    seed: int = 0
    config: dict = field(default_factory=dict)
    variant: str = ""


def test_groups_come_in_the_order_given_then_by_name():
    papers = [Paper(name) for name in ("z", "augshift", "a", "baseline")]
    found = grouped(papers, "method", order=("baseline", "augshift"))
    assert list(found) == [("baseline",), ("augshift",), ("a",), ("z",)]


def test_seeds_are_no_variant_and_other_options_are():
    papers = [Paper("a", config={"seed": seed, "width": 8}) for seed in (0, 1)]
    assert {paper.variant for paper in with_variants(papers, ["method"])} == {""}
    papers.append(Paper("a", config={"seed": 0, "width": 16}))
    variants = [paper.variant for paper in with_variants(papers, ["method"])]
    assert variants == ["width 8", "width 8", "width 16"]
    assert {paper.variant for paper in with_variants(papers, ["method"], ["width"])} == {""}


def test_options_that_a_record_of_before_lacks_tell_it_apart():
    papers = [Paper("a", config={"width": 8}), Paper("a", config={"width": 8, "new": 1})]
    assert [p.variant for p in with_variants(papers, ["method"])] == ["new None", "new 1"]


def test_names_are_told_apart_by_what_differs_and_no_more():
    configs = [{"seed": 0, "size": [2, 3]}, {"seed": 0, "size": [4, 3]}, {"seed": 1, "size": None}]
    assert told_apart(["a", "a", "b"], configs) == ["a, size 2, 3", "a, size 4, 3", "b"]


def test_digests_tell_a_reader_nothing():
    configs = [{"weights_digest": "1f"}, {"weights_digest": "2e"}]
    assert told_apart(["a", "a"], configs) == ["a", "a"]


def test_networks_are_named_by_the_ends_of_their_paths():
    config = {"model": "/runs/net/", "weights": "random", "data": "a/photos"}
    assert networks_of([config]) == ["net, random weights, photos"]


def test_a_recipe_is_what_all_have():
    papers = [Paper("a", config={"width": 8, "size": [2, 3], "images": None, "x": 1}), Paper("a")]
    assert recipe(papers[:1], ["width", "size", "images"]) == "width 8, size 2×3, images all"
    assert recipe(papers, ["x"]) == ""
