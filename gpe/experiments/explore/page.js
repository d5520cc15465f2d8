"use strict";
// Draws what gpe/experiments/explore/page.py packed. Nothing is loaded from anywhere.
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const data = JSON.parse($("data").textContent);
const segments = data.task === "segmentation";
const state = { ranking: 0, step: 0, picture: 0, place: 4, region: data.regions[0].name, rank: 0 };
const unpacked = []; // promises of the classes of each picture
const maps = {}; // bytes by name

// Numbers as the record has them, with one decimal.
const percent = (value) => (value === null ? "–" : `${value.toFixed(1)} %`);
function change(before, now) {
  if (before === null || now === null) return "–";
  const points = (now - before).toFixed(1);
  return Number(points) === 0 ? "±0.0" : points.replace("-", "−").replace(/^\d/, "+$&");
}

async function bytes(packed) {
  const deflated = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Classes by ranking, count and pixel. Each count is packed as what differs from the one before.
async function unpack(sample) {
  const [labels, answers] = await Promise.all([bytes(sample.labels), bytes(sample.answers)]);
  const size = labels.length;
  for (let at = size; at < answers.length; at++) {
    if (Math.floor(at / size) % data.counts.length) answers[at] ^= answers[at - size];
  }
  return { labels, answers };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const rgb = (name) => colour(name).match(/\w\w/g).map((pair) => parseInt(pair, 16));
const mixed = (share) => {
  const [low, high] = [rgb("panel"), rgb("blue")];
  return low.map((value, place) => value + (high[place] - value) * share);
};
const shades = () => Array.from({ length: 256 }, (_, value) => mixed(value / 255));

function paint(canvas, [height, width], colourAt) {
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) pixels.data.set([...colourAt(at), 255], 4 * at);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

async function drawSegments() {
  const place = state.picture, sample = data.samples[place];
  unpacked[place] ??= unpack(sample);
  const { labels, answers } = await unpacked[place];
  if (place !== state.picture) return;
  const start = (state.ranking * data.counts.length + state.step) * labels.length;
  const [wrong, right, unknown] = ["red", "panel", "hairline"].map(rgb);
  paint($("seen"), sample.size, (at) => data.classes[answers[start + at]][1]);
  paint($("errors"), sample.size, (at) =>
    labels[at] === 255 ? unknown : labels[at] === answers[start + at] ? right : wrong);
  const { accuracy } = sample.scores[state.ranking][state.step];
  $("wrong").textContent = `${percent(accuracy === null ? null : 100 - accuracy)} of the pixels`;
}

function drawAnswers() {
  const { ranking, step } = state;
  const answer = (sample, count) => sample.answers[sample.said[ranking][count]];
  const show = (id, sample, count) => {
    const share = document.createElement("small");
    share.textContent = ` ${percent(sample.shares[ranking][count])} sure`;
    $(id).replaceChildren(answer(sample, count), share);
  };
  const sample = data.samples[state.picture];
  $("without").textContent = `${data.counts[step]} of ${data.channels}`;
  show("before", sample, 0);
  show("now", sample, step);
  if ($("label")) $("label").textContent = sample.label;
  all(".thumbs label").forEach((label, place) => {
    const [before, now] = [0, step].map((count) => answer(data.samples[place], count));
    label.classList.toggle("changed", now !== before);
    label.querySelector("small").textContent = now === before ? now : `${before} → ${now}`;
  });
}

function drawScores() {
  const { ranking, step } = state, first = data.scores[ranking][0], now = data.scores[ranking][step];
  all("#scores tbody tr").forEach((row, place) => {
    const { name } = data.regions[place];
    const texts = [percent(now[name]), change(first[name], now[name])];
    if (segments) texts.unshift(percent(data.samples[state.picture].scores[ranking][step][name]));
    row.querySelectorAll("td").forEach((cell, column) => {
      cell.textContent = texts[column];
      cell.className = texts[column].startsWith("−") ? "less" : "";
    });
  });
}

function drawPlot() {
  const svg = $("plot"), [width, height] = [svg.clientWidth, svg.clientHeight];
  const [left, right, top, bottom] = [44, width - 20, 10, height - 28];
  const curve = (ranking) => data.scores[ranking].map((scores) => scores[state.region]);
  const shown = data.rankings.map((_, at) => at)
    .filter((at) => data.rankings[at].cell === null || at === state.ranking);
  const values = shown.flatMap(curve).filter((value) => value !== null);
  const low = Math.floor(Math.min(...values) / 20) * 20, high = Math.ceil(Math.max(...values) / 20) * 20 || 20;
  const most = Math.max(1, ...data.counts);
  const x = (count) => left + (count / most) * (right - left);
  const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
  const parts = [];
  for (let value = low; value <= high; value += 20) {
    parts.push(`<path d="M${left} ${y(value)}H${right}" stroke="var(--hairline)"/>`,
      `<text x="${left - 8}" y="${y(value) + 4}" text-anchor="end">${value}</text>`);
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(`<text x="${x(share * most)}" y="${height - 8}" text-anchor="middle">${Math.round(share * most)}</text>`);
  }
  shown.sort((one, other) => (one === state.ranking) - (other === state.ranking));
  for (const at of shown) {
    const { colour, dashes } = data.rankings[at], active = at === state.ranking;
    const points = curve(at).map((value, step) => value === null ? "" : `${x(data.counts[step])},${y(value)}`);
    parts.push(`<polyline points="${points.join(" ")}" fill="none" stroke="var(--${colour})" stroke-width="${active ? 3.5 : 1.5}" stroke-dasharray="${dashes}"/>`);
  }
  const count = x(data.counts[state.step]), value = curve(state.ranking)[state.step];
  parts.push(`<path d="M${count} ${top}V${bottom}" stroke="var(--red)" stroke-dasharray="3 3"/>`);
  if (value !== null) parts.push(`<circle cx="${count}" cy="${y(value)}" r="6" fill="var(--red)"/>`);
  svg.innerHTML = parts.join("");
  $("region").textContent = data.regions.find(({ name }) => name === state.region).label;
}

// The channels as squares, by rank.
const SIDE = 32, GAP = 5;
const columns = () => Math.max(1, Math.floor(($("tiles").parentElement.clientWidth - 6) / (SIDE + GAP)));
const removed = () => new Set(data.orders[state.ranking].slice(0, data.counts[state.step]));

function sheet() {
  const canvas = document.createElement("canvas"), { size: [height, width] } = data.responses;
  const shade = shades(), across = 64;
  paint(canvas, [height * Math.ceil(data.channels / across), width * across], (at) => {
    const row = Math.floor(at / (width * across)), column = at % (width * across);
    const channel = Math.floor(row / height) * across + Math.floor(column / width);
    return shade[maps.responses[(channel * height + (row % height)) * width + (column % width)] ?? 0];
  });
  return (context, channel, x, y) => context.drawImage(canvas, (channel % across) * width,
    Math.floor(channel / across) * height, width, height, x, y, SIDE, SIDE);
}
let tile = null;

function drawTiles() {
  const canvas = $("tiles"), across = columns(), gone = removed(), dense = devicePixelRatio;
  const [width, height] = [across * (SIDE + GAP), Math.ceil(data.channels / across) * (SIDE + GAP)];
  Object.assign(canvas, { width: width * dense, height: height * dense });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  context.imageSmoothingEnabled = false;
  if (maps.responses) tile ??= sheet();
  const frame = (x, y, name, wide) => {
    context.strokeStyle = colour(name);
    context.lineWidth = wide;
    context.strokeRect(x - wide / 2, y - wide / 2, SIDE + wide, SIDE + wide);
  };
  const panel = colour("panel");
  data.rank.forEach((channel, rank) => {
    const x = (rank % across) * (SIDE + GAP) + GAP / 2, y = Math.floor(rank / across) * (SIDE + GAP) + GAP / 2;
    context.fillStyle = panel;
    context.fillRect(x, y, SIDE, SIDE);
    context.globalAlpha = gone.has(channel) ? 0.35 : 1;
    if (tile) tile(context, channel, x, y);
    context.globalAlpha = 1;
    if (gone.has(channel)) frame(x, y, "red", 1.5);
    if (rank === state.rank) frame(x, y, "ink", 2.5);
  });
}

function drawChannel() {
  const channel = data.rank[state.rank], shade = shades();
  const text = `channel ${channel}, number ${state.rank + 1} of ${data.channels}`;
  $("tiles").setAttribute("aria-valuenow", state.rank + 1);
  $("tiles").setAttribute("aria-valuetext", text);
  $("channel").textContent = `Channel ${channel}`;
  for (const name of ["responses", "cells"].filter((name) => maps[name])) {
    const { size } = data[name], start = channel * size[0] * size[1];
    paint($(name), size, (at) => shade[maps[name][start + at]]);
  }
  const facts = [[`${data.rankings[0].label}, rank`, `${state.rank + 1} of ${data.channels}`]];
  if (data.bits) facts.push(["tells of the place", `${data.bits[channel].toFixed(2)} of ${Math.log2(9).toFixed(2)} bits`]);
  const alone = data.alone[channel], whole = data.scores[0][0];
  if (!alone) facts.push(["without it", "not measured (--alone)"]);
  for (const { name, label } of alone ? data.regions : []) {
    const said = segments ? `${data.score}, ${label}` : label;
    facts.push([`without it: ${said}`, `${percent(alone[name])} (${change(whole[name], alone[name])})`]);
  }
  facts.push(["now", removed().has(channel) ? "removed" : "there"]);
  $("facts").innerHTML = "";
  for (const [name, value] of facts) {
    const row = document.createElement("div");
    for (const [tag, content] of [["dt", name], ["dd", value]]) {
      row.appendChild(document.createElement(tag)).textContent = content;
    }
    $("facts").append(row);
  }
}

function draw() {
  const count = data.counts[state.step], slider = $("count");
  const text = `${count} of ${data.channels}`;
  $("removed").textContent = text;
  slider.setAttribute("aria-valuetext", `${text} channels`);
  $("picture").src = data.samples[state.picture].image;
  const { cell, label } = data.rankings[state.ranking];
  all("[data-cell]").forEach((button) =>
    button.setAttribute("aria-pressed", Number(button.dataset.cell) === cell));
  if ($("place")) $("place").textContent = cell === null ? "click it in the picture" : label;
  segments ? drawSegments() : drawAnswers();
  drawScores();
  drawPlot();
  drawTiles();
  drawChannel();
}

const ofPlace = (cell) => data.rankings.findIndex((ranking) => ranking.cell === cell);
function choose(changes) {
  Object.assign(state, changes);
  draw();
}

$("count").addEventListener("input", (event) => choose({ step: Number(event.target.value) }));
document.addEventListener("change", ({ target: { name, value } }) => {
  if (name === "ranking") choose({ ranking: value === "place" ? ofPlace(state.place) : Number(value) });
  if (name === "picture") choose({ picture: Number(value) });
  if (name === "region") choose({ region: value });
});
all("[data-cell]").forEach((button) => button.addEventListener("click", () => {
  const place = Number(button.dataset.cell);
  document.querySelector("[value=place]").checked = true;
  // Nothing is seen of a place while nothing is removed.
  const step = state.step || Math.min(4, data.counts.length - 1);
  $("count").value = step;
  choose({ place, ranking: ofPlace(place), step });
}));
$("tiles").addEventListener("click", ({ offsetX, offsetY }) => {
  const rank = Math.floor(offsetY / (SIDE + GAP)) * columns() + Math.floor(offsetX / (SIDE + GAP));
  if (rank < data.channels) choose({ rank });
});
$("tiles").addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  const ends = { Home: 0, End: data.channels - 1 };
  const rank = ends[event.key] ?? state.rank + moves[event.key];
  if (!(rank >= 0 && rank < data.channels)) return;
  event.preventDefault();
  choose({ rank });
});
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  tile = null;
  draw();
});

draw();
for (const name of ["responses", "cells"].filter((name) => data[name])) {
  bytes(data[name].data).then((unpacked) => {
    maps[name] = unpacked;
    draw();
  });
}
