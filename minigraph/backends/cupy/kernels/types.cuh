// What all kernels share: integers of fixed width, half types and what they are computed in, loads of 16 bytes.
#pragma once
#ifndef MG_HOST  // on the CPU a shim defines what the compiler and its headers bring along
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define MG_INLINE __device__ __forceinline__
#else
#define MG_INLINE inline
#endif
#ifdef __CUDACC_RTC__  // compiled while a program runs: there are no headers of the host's
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#else
#include <stdint.h>
#endif

// Counts elements: an array may hold more than 2³¹.
typedef long long Index;

// Half precision is stored, and computed in float; all others are computed in themselves.
template <class T> struct ComputedIn { typedef T type; };
template <> struct ComputedIn<__half> { typedef float type; };
template <> struct ComputedIn<__nv_bfloat16> { typedef float type; };
template <class T> using Compute = typename ComputedIn<T>::type;

template <class T> MG_INLINE T to_float(T x) { return x; }
MG_INLINE float to_float(__half x) { return __half2float(x); }
MG_INLINE float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> struct Rounded {
  static MG_INLINE T of(T x) { return x; }
};
template <> struct Rounded<__half> {
  static MG_INLINE __half of(float x) { return __float2half(x); }
};
template <> struct Rounded<__nv_bfloat16> {
  static MG_INLINE __nv_bfloat16 of(float x) { return __float2bfloat16(x); }
};
// The number as it is stored.
template <class T> MG_INLINE T from_float(Compute<T> x) { return Rounded<T>::of(x); }

// Elements that are read and written at a time, 16 bytes of them where the address is a multiple of that.
template <class T, int N> struct alignas(N * sizeof(T)) Pack {
  T at[N];
};
template <class T> constexpr int IN_16_BYTES = 16 / sizeof(T);
template <int N, class T> MG_INLINE Pack<T, N> load(const T* p) { return *(const Pack<T, N>*)p; }
template <int N, class T> MG_INLINE void store(T* p, const Pack<T, N>& values) { *(Pack<T, N>*)p = values; }

// Where a thread of a grid begins, and how far it steps: `for (Index i = thread_index(); i < n; i += thread_count())`.
MG_INLINE Index thread_index() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }
MG_INLINE Index thread_count() { return (Index)gridDim.x * blockDim.x; }
