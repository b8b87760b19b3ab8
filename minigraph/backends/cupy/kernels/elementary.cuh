// The arithmetic of one element, for numbers and for a few of them side by side: what generated loops are written in.
#pragma once
#include "types.cuh"

// N numbers that a thread computes with at a time; of conditions, N of them. A single number is Lanes of one.
template <class T, int N> struct Lanes {
  T at[N];
};
template <class V> struct Lane { typedef V type; };
template <class T, int N> struct Lane<Lanes<T, N>> { typedef T type; };

#define MG_EACH _Pragma("unroll") for (int i = 0; i < N; i++)
#define MG_BINARY(op, Result)                                                                       \
  template <class T, int N> MG_INLINE Lanes<Result, N> operator op(Lanes<T, N> a, Lanes<T, N> b) {  \
    Lanes<Result, N> y;                                                                             \
    MG_EACH y.at[i] = a.at[i] op b.at[i];                                                           \
    return y;                                                                                       \
  }
MG_BINARY(+, T)
MG_BINARY(-, T)
MG_BINARY(*, T)
MG_BINARY(/, T)
MG_BINARY(<, bool)
MG_BINARY(<=, bool)
MG_BINARY(>, bool)
MG_BINARY(>=, bool)
MG_BINARY(==, bool)
MG_BINARY(!=, bool)
MG_BINARY(&, bool)
MG_BINARY(|, bool)
#undef MG_BINARY
template <class T, int N> MG_INLINE Lanes<T, N> operator-(Lanes<T, N> a) {
  MG_EACH a.at[i] = -a.at[i];
  return a;
}
template <int N> MG_INLINE Lanes<bool, N> operator~(Lanes<bool, N> a) {
  MG_EACH a.at[i] = !a.at[i];
  return a;
}

// Lanes are loaded and stored with one access where their address allows: generated loops see to that.
template <class V> struct Access {
  template <class T> static MG_INLINE V get(const T* p) { return to_float(*p); }
  template <class T> static MG_INLINE void set(T* p, V v) { *p = from_float<T>(v); }
  static MG_INLINE V all(V x) { return x; }
  static MG_INLINE V choose(bool condition, V yes, V no) { return condition ? yes : no; }
};
template <class C, int N> struct Access<Lanes<C, N>> {
  typedef Lanes<C, N> V;
  template <class T> static MG_INLINE V get(const T* p) {
    const Pack<T, N> stored = load<N>(p);
    V v;
    MG_EACH v.at[i] = to_float(stored.at[i]);
    return v;
  }
  template <class T> static MG_INLINE void set(T* p, V v) {
    Pack<T, N> stored;
    MG_EACH stored.at[i] = from_float<T>(v.at[i]);
    store<N>(p, stored);
  }
  static MG_INLINE V all(C x) {
    V v;
    MG_EACH v.at[i] = x;
    return v;
  }
  static MG_INLINE V choose(Lanes<bool, N> condition, V yes, V no) {
    MG_EACH yes.at[i] = condition.at[i] ? yes.at[i] : no.at[i];
    return yes;
  }
};
template <class V, class T> MG_INLINE V get(const T* p) { return Access<V>::get(p); }
template <class V, class T> MG_INLINE void set(T* p, V v) { Access<V>::set(p, v); }
template <class V> MG_INLINE V all(typename Lane<V>::type x) { return Access<V>::all(x); }
template <class M, class V> MG_INLINE V choose(M condition, V yes, V no) { return Access<V>::choose(condition, yes, no); }

// The nearest number that a stored type has: what a conversion to it and back leaves.
template <class T, class C> MG_INLINE Compute<T> rounded(C x) { return to_float(from_float<T>((Compute<T>)x)); }
template <class T, class C, int N> MG_INLINE Lanes<C, N> rounded(Lanes<C, N> x) {
  MG_EACH x.at[i] = rounded<T>(x.at[i]);
  return x;
}

// Like NumPy's: NaN wins.
template <class V> MG_INLINE V maximum(V a, V b) { return choose(a >= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V minimum(V a, V b) { return choose(a <= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V relu(V x) { return choose(x <= all<V>(0), all<V>(0), x); }
template <class V> MG_INLINE V absolute(V x) { return choose(x == all<V>(0), all<V>(0), choose(x < all<V>(0), (V)-x, x)); }
template <class V> MG_INLINE V sign_of(V x) {
  return choose(x > all<V>(0), all<V>(1), choose(x < all<V>(0), all<V>(-1), x));
}
template <class V> MG_INLINE V clip(V x, V low, V high) { return minimum(maximum(x, low), high); }

// Functions of CUDA's library, lane by lane.
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
#undef MG_EACH

template <class V> MG_INLINE V reciprocal_root(V x) { return all<V>(1) / square_root(x); }
// With e = exp(−|x|): 1/(1 + e) for x ≥ 0, e/(1 + e) below. Never overflows; small results keep their digits.
template <class V> MG_INLINE V sigmoid(V x) {
  const V e = exponential(-absolute(x)), one = all<V>(1);
  return choose(x >= all<V>(0), one, choose(x < all<V>(0), e, x)) / (one + e);
}
// log(1 + exp x), as max(x, 0) + log1p(exp(−|x|)).
template <class V> MG_INLINE V softplus(V x) { return relu(x) + logarithm_1_plus(exponential(-absolute(x))); }
// x above 0, α·(exp(x) − 1) below; the two sides apart, so that α = 0 and x = ∞ do not meet.
template <class V> MG_INLINE V elu(V x, V alpha) { return relu(x) + alpha * exponential_minus_1(minimum(x, all<V>(0))); }
template <class V> MG_INLINE V leaky_relu(V x, V alpha) { return relu(x) + alpha * minimum(x, all<V>(0)); }
