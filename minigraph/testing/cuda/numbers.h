// CUDA's half-precision numbers and vectors, and its functions of numbers that C does not have.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

template <class To, class From> inline To mg_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "the same bytes, read as another type");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

inline int __float_as_int(float x) { return mg_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return mg_bits<unsigned>(x); }
inline float __int_as_float(int x) { return mg_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return mg_bits<float>(x); }
inline long long __double_as_longlong(double x) { return mg_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return mg_bits<double>(x); }

namespace mg {

// Drop the low bits of a number, to the nearest that is left, to the even one of two as near.
inline uint32_t shifted_to_nearest(uint32_t x, int bits) {
  const uint32_t half = 1u << (bits - 1), rest = x & ((1u << bits) - 1), kept = x >> bits;
  return kept + (rest > half || (rest == half && (kept & 1)));
}

inline uint16_t bfloat16_bits(float x) {
  return x != x ? 0x7FFF : (uint16_t)shifted_to_nearest(__float_as_uint(x), 16);
}

inline uint16_t half_bits(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return 0x7FFF;
  if (magnitude >= 0x477FF000) return sign | 0x7C00;  // 65520 and above are nearer to what would be 65536
  // A normal number has its exponent's bias changed from 127 to 15: that may carry into the exponent, as it should.
  if (magnitude >= 0x38800000) return sign | shifted_to_nearest(magnitude - (112u << 23), 13);
  if (magnitude < 0x33000000) return sign;  // below half of the least: 2⁻²⁵
  // A subnormal number counts 2⁻²⁴.
  const int exponent = magnitude >> 23;
  return sign | shifted_to_nearest((magnitude & 0x7FFFFF) | 0x800000, 126 - exponent);
}

inline float half_value(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
  if (exponent == 31) return __uint_as_float(sign | 0x7F800000 | fraction << 13);
  if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float value = fraction * 0x1p-24f;
  return sign ? -value : value;
}

}  // namespace mg

// They are stored and converted; to compute with them is to convert first, as the device does not round on the way.
struct __half {
  uint16_t bits;
  __half() = default;
  explicit __half(float x) : bits(mg::half_bits(x)) {}
  explicit operator float() const { return mg::half_value(bits); }
};
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x) : bits(mg::bfloat16_bits(x)) {}
  explicit operator float() const { return __uint_as_float((uint32_t)bits << 16); }
};
typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;

inline float __half2float(__half x) { return float(x); }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return float(x); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __half __ushort_as_half(unsigned short x) { return mg_bits<__half>(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return mg_bits<__nv_bfloat16>(x); }

#define MG_VECTORS(T, NAME)                                                                        \
  struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                                               \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) NAME##4 { T x, y, z, w; };                    \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                                       \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
MG_VECTORS(signed char, char)
MG_VECTORS(unsigned char, uchar)
MG_VECTORS(short, short)
MG_VECTORS(unsigned short, ushort)
MG_VECTORS(int, int)
MG_VECTORS(unsigned, uint)
MG_VECTORS(long, long)
MG_VECTORS(float, float)
MG_VECTORS(double, double)
#undef MG_VECTORS

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// Of numbers, C++ has these in a namespace and of one type only. Of a number and NaN, the number comes back.
#define MG_EXTREMA(T)                                                                              \
  inline T min(T a, T b) { return b < a ? b : a; }                                                 \
  inline T max(T a, T b) { return a < b ? b : a; }
MG_EXTREMA(int)
MG_EXTREMA(unsigned)
MG_EXTREMA(long)
MG_EXTREMA(unsigned long)
MG_EXTREMA(long long)
MG_EXTREMA(unsigned long long)
#undef MG_EXTREMA
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
