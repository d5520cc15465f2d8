// Lets one header serve g++ and nvcc.
#pragma once

#ifdef __CUDACC__
#define GPE_HOST_DEVICE __host__ __device__ inline
#else
#define GPE_HOST_DEVICE inline
#endif
