"""Ops: one public function each, with compiled, Triton and reference implementations."""
