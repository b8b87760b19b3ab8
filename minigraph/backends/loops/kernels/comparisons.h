// What takes no more than comparing: of numbers and lanes alike, in the `all` and `choose` that each dialect defines.
#pragma once

// Like NumPy's: NaN wins.
template <class V> MG_INLINE V maximum(V a, V b) { return choose(a >= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V minimum(V a, V b) { return choose(a <= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V relu(V x) { return choose(x <= all<V>(0), all<V>(0), x); }
template <class V> MG_INLINE V absolute(V x) { return choose(x == all<V>(0), all<V>(0), choose(x < all<V>(0), (V)-x, x)); }
template <class V> MG_INLINE V sign_of(V x) {
  return choose(x > all<V>(0), all<V>(1), choose(x < all<V>(0), all<V>(-1), x));
}
template <class V> MG_INLINE V clip(V x, V low, V high) { return minimum(maximum(x, low), high); }
