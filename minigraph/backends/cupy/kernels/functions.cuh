// Elementary functions: those of CUDA's library, lane by lane.
#pragma once
#include "lanes.cuh"

#define MG_FUNCTION(name, of_float, of_double)                            \
  MG_INLINE float name(float x) { return of_float(x); }                   \
  MG_INLINE double name(double x) { return of_double(x); }                \
  template <class T, int N> MG_INLINE Lanes<T, N> name(Lanes<T, N> x) {   \
    MG_EACH x.at[i] = name(x.at[i]);                                      \
    return x;                                                             \
  }
MG_FUNCTION(square_root, sqrtf, sqrt)
MG_FUNCTION(round_down, floorf, floor)
MG_FUNCTION(sine, sinf, sin)
MG_FUNCTION(cosine, cosf, cos)
MG_FUNCTION(error_function, erff, erf)
MG_FUNCTION(exponential, expf, exp)
MG_FUNCTION(exponential_minus_1, expm1f, expm1)
MG_FUNCTION(logarithm, logf, log)
MG_FUNCTION(logarithm_1_plus, log1pf, log1p)
MG_FUNCTION(hyperbolic_tangent, tanhf, tanh)
#undef MG_FUNCTION
MG_INLINE float power(float x, float y) { return powf(x, y); }
MG_INLINE double power(double x, double y) { return pow(x, y); }
template <class T, int N> MG_INLINE Lanes<T, N> power(Lanes<T, N> x, Lanes<T, N> y) {
  MG_EACH x.at[i] = power(x.at[i], y.at[i]);
  return x;
}
