// What is put together from comparisons and the elementary functions that each dialect defines.
#pragma once

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
