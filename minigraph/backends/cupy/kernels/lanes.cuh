// Numbers, and a few of them side by side: how they are computed with, read, written and chosen from.
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
