// Vectors and threads: what all kernels are written in.
//
// A vector is as wide as the processor's registers; the compiler's vector extensions give + - * / and comparisons on
// it, so that AVX-512, AVX2 and NEON come from one source. Comparisons of vectors are masks: integers, 0 or −1.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define MG_VECTOR_BYTES 64
#define MG_REGISTERS 32
#elif defined(__AVX__)
#define MG_VECTOR_BYTES 32
#define MG_REGISTERS 16
#else
#define MG_VECTOR_BYTES 16
#define MG_REGISTERS 32
#endif

#define MG_INLINE static inline __attribute__((always_inline))
#define MG_INLINE_METHOD inline __attribute__((always_inline))

// Some compilers know only their own spelling of "unroll this loop".
#if defined(__clang__)
#define MG_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MG_UNROLL _Pragma("GCC unroll 64")
#endif

template <class T>
constexpr ptrdiff_t LANES = MG_VECTOR_BYTES / sizeof(T);

// The integer of a number's width: comparisons of vectors are vectors of it.
template <class T> struct MaskOf;
template <> struct MaskOf<float> { using type = int32_t; };
template <> struct MaskOf<double> { using type = int64_t; };
template <> struct MaskOf<int32_t> { using type = int32_t; };
template <> struct MaskOf<int64_t> { using type = int64_t; };

template <class T>
struct Vec {
  // Arrays of the arena are aligned, rows of odd length are not: loads and stores may be unaligned.
  typedef T type __attribute__((vector_size(MG_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef typename MaskOf<T>::type mask __attribute__((vector_size(MG_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
};

template <class T>
MG_INLINE typename Vec<T>::type load(const T* p) { return *(const typename Vec<T>::type*)p; }

template <class T>
MG_INLINE void store(T* p, typename Vec<T>::type v) { *(typename Vec<T>::type*)p = v; }

template <class T>
MG_INLINE typename Vec<T>::type splat(T x) { return x - typename Vec<T>::type{}; }

template <class T>
MG_INLINE T add_up(typename Vec<T>::type v) {
  T sum = 0;
  MG_UNROLL for (ptrdiff_t i = 0; i < LANES<T>; i++) sum += v[i];
  return sum;
}

MG_INLINE ptrdiff_t at_most(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
MG_INLINE ptrdiff_t at_least(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
MG_INLINE ptrdiff_t divided_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

struct Range { ptrdiff_t begin, end; };

// What a kernel knows of the threads that run it side by side.
struct Team {
  int thread, threads;
  void barrier() const;  // wait until all threads are here
};

// This thread's part of n items, in whole multiples of `step` but for the last.
MG_INLINE Range share(ptrdiff_t n, const Team& team, ptrdiff_t step = 1) {
  ptrdiff_t blocks = divided_up(n, step);
  return {at_most(n, blocks * team.thread / team.threads * step),
          at_most(n, blocks * (team.thread + 1) / team.threads * step)};
}

// The sizes of a convolution. Images are N,H,W,C and kernels H,W,I/groups,O, without gaps. h,w,c: the image side;
// oh,ow,o: the side of the output; top and left: padding before.
struct Conv {
  ptrdiff_t n, h, w, c, oh, ow, o, kh, kw, sh, sw, dh, dw, top, left, groups;
};
