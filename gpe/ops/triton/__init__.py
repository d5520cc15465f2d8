"""Triton kernels: they serve GPUs where gpe._C was built without CUDA."""
