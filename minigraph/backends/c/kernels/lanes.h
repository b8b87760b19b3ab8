// Numbers and vectors alike: how they are read, written and chosen from.
#pragma once
#include "vector.h"

typedef Vec<float>::type floats;
typedef Vec<double>::type doubles;

template <class V> struct Lane { typedef V type; };
template <> struct Lane<floats> { typedef float type; };
template <> struct Lane<doubles> { typedef double type; };

template <class V, class T> MG_INLINE V get(const T* p) { return *(const V*)p; }
template <class V, class T> MG_INLINE void set(T* p, V v) { *(V*)p = v; }
template <class V> MG_INLINE V all(typename Lane<V>::type x) { return x - V{}; }

// A condition chooses lane by lane; of a number it is a plain condition.
template <class M, class V> MG_INLINE V choose(M condition, V yes, V no) { return condition ? yes : no; }
