// Elementary functions, of numbers and of vectors alike.
#pragma once
#include "lanes.h"
#include "comparisons.h"

// Functions of the C library, lane by lane; the compiler makes vectors of those that the processor has.
#define MG_LANES(name, T, V, of)                                       \
  MG_INLINE T name(T x) { return of(x); }                              \
  MG_INLINE V name(V x) {                                              \
    V y;                                                               \
    MG_UNROLL for (ptrdiff_t i = 0; i < LANES<T>; i++) y[i] = of(x[i]); \
    return y;                                                          \
  }
#define MG_BOTH(name, of_float, of_double) \
  MG_LANES(name, float, floats, of_float)  \
  MG_LANES(name, double, doubles, of_double)
MG_BOTH(square_root, __builtin_sqrtf, __builtin_sqrt)
MG_BOTH(round_down, __builtin_floorf, __builtin_floor)
MG_BOTH(sine, sinf, sin)
MG_BOTH(cosine, cosf, cos)
MG_BOTH(error_function, erff, erf)
MG_LANES(exponential, double, doubles, exp)
MG_LANES(exponential_minus_1, double, doubles, expm1)
MG_LANES(logarithm, double, doubles, log)
MG_LANES(logarithm_1_plus, double, doubles, log1p)
MG_LANES(hyperbolic_tangent, double, doubles, tanh)
#undef MG_LANES
#undef MG_BOTH

// The same bits as another type.
template <class To, class From> MG_INLINE To bits_as(From x) {
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}
template <class V> struct BitsOf { typedef int32_t type; };
template <> struct BitsOf<floats> { typedef Vec<float>::mask type; };
MG_INLINE float to_floats(int32_t x) { return (float)x; }
MG_INLINE floats to_floats(BitsOf<floats>::type x) { return __builtin_convertvector(x, floats); }

// Polynomials that lie within 2⁻²⁶ of their function, relatively, where they are used: fitted so that the largest error
// is least. What they are put together with below adds less than 1½ units in the last place.
template <class V> MG_INLINE V polynomial(V) { return all<V>(0); }
template <class V, class... Rest> MG_INLINE V polynomial(V x, float first, Rest... rest) {
  return all<V>(first) + x * polynomial(x, rest...);
}

// eˣ − 1 = 2ⁿ·q + 2ⁿ − 1, with n the whole number next to x/ln 2. 2ⁿ may be out of range where eˣ is not: two factors.
template <class V> struct PowerOfE { V q, half, rest; };
template <class V> MG_INLINE PowerOfE<V> power_of_e(V x) {
  typedef typename BitsOf<V>::type I;
  const V least = all<V>(-110), most = all<V>(90), shift = all<V>(0x1.8p23f);
  x = choose(x < least, least, choose(x > most, most, x));
  const V shifted = x * all<V>(0x1.715476p0f) + shift, n = shifted - shift;
  const V r = x - n * all<V>(0x1.62e4p-1f) - n * all<V>(0x1.7f7d1cp-20f);
  const V p = polynomial(r, 0x1.fffffep-2f, 0x1.5554bp-3f, 0x1.555674p-5f, 0x1.12281ap-7f, 0x1.6bebeep-10f);
  const I whole = bits_as<I>(shifted) - bits_as<I>(shift), half = whole >> 1;
  return {r + r * r * p, bits_as<V>((half + 127) << 23), bits_as<V>((whole - half + 127) << 23)};
}
template <class V> MG_INLINE V exponential(V x) {
  const PowerOfE<V> e = power_of_e(x);
  return (e.q * e.half + e.half) * e.rest;
}
template <class V> MG_INLINE V exponential_minus_1(V x) {
  const PowerOfE<V> e = power_of_e(x);
  const V y = (e.q * e.half + (e.half - all<V>(1) / e.rest)) * e.rest;
  return choose(x == all<V>(0), x, y);
}

// ln x = e·ln 2 + ln(1 + f), √½ ≤ 1 + f < √2.
template <class V> MG_INLINE V logarithm(V x) {
  typedef typename BitsOf<V>::type I;
  const auto subnormal = x < all<V>(0x1p-126f);
  const I bits = bits_as<I>(choose(subnormal, x * all<V>(0x1p25f), x));
  const I exponent = (bits - 0x3f3504f3) >> 23;
  const V f = bits_as<V>(bits - (exponent << 23)) - all<V>(1);
  const V e = to_floats(exponent) - choose(subnormal, all<V>(25), all<V>(0));
  const V p = polynomial(f, 0.3333333f, -0.25000823f, 0.20001227f, -0.16623354f, 0.14201744f, -0.13160208f, 0.127617f,
                         -0.07634586f);
  const V small = f * f * (f * p - all<V>(0.5f)) + e * all<V>(0x1.7f7d1cp-20f);
  const V y = e * all<V>(0x1.62e4p-1f) + (f + small);
  const V odd = choose(x == all<V>(0), all<V>(-INFINITY), choose(x < all<V>(0), all<V>(NAN), x));  // 0, below 0, ∞, NaN
  return choose(x > all<V>(0), choose(x < all<V>(INFINITY), y, odd), odd);
}
// ln(1 + x): what rounding 1 + x loses is put back.
template <class V> MG_INLINE V logarithm_1_plus(V x) {
  const V u = all<V>(1) + x;
  return choose(u < all<V>(INFINITY), logarithm(u) + (x - (u - all<V>(1))) / u, u);
}

template <class V> MG_INLINE V hyperbolic_tangent(V x) {
  const V z = x * x, size = absolute(x);
  const V p = polynomial(z, -0.33333278f, 0.13331331f, -0.053730007f, 0.020606177f, -0.0056669773f);
  const V far = all<V>(1) - all<V>(2) / (exponential(size + size) + all<V>(1));
  return choose(size < all<V>(0.625f), x + x * z * p, choose(x < all<V>(0), -far, far));
}

MG_INLINE float power(float x, float y) { return powf(x, y); }
MG_INLINE double power(double x, double y) { return pow(x, y); }
template <class V> MG_INLINE V power(V x, V y) {
  V z;
  for (size_t i = 0; i < sizeof(V) / sizeof(x[0]); i++) z[i] = power(x[i], y[i]);
  return z;
}
