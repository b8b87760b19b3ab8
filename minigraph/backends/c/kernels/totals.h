// Sums and moments that a loop keeps for each column: a thread's totals are doubles, and are joined in their order.
#pragma once
#include "elementary.h"

// Blocks of rows are summed in the loop's own type, and the blocks in double: the error does not grow with the rows.
template <class T> MG_INLINE void add_to(double* total, T value) { *total += (double)value; }
MG_INLINE void add_to(double* total, floats v) { for (ptrdiff_t i = 0; i < LANES<float>; i++) total[i] += (double)v[i]; }
MG_INLINE void add_to(double* total, doubles v) { for (ptrdiff_t i = 0; i < LANES<double>; i++) total[i] += v[i]; }

// Number, mean and Σ(x − mean)² of what has been seen of each column: three arrays, one behind the other.
// Two sets are joined as Chan, Golub & LeVeque do, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979.
MG_INLINE void join_moments(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, double mean, double squares) {
  if (n == 0) return;
  double &n0 = moments[c], &mean0 = moments[columns + c], &squares0 = moments[2 * columns + c];
  const double both = n0 + n, delta = mean - mean0;
  mean0 += delta * (n / both);
  squares0 += squares + delta * delta * (n0 * n / both);
  n0 = both;
}

MG_INLINE double at_least_0(double x) { return x < 0 ? 0 : x; }

// A block's moments from sums about `shift`, an element of the block: no digits are lost where the mean is large.
template <class T>
MG_INLINE void add_moments(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, T shift, T sum, T squares) {
  const double mean = (double)sum / n;
  join_moments(moments, columns, c, n, (double)shift + mean, at_least_0((double)squares - (double)sum * mean));
}
template <class V>
MG_INLINE void add_moments_of(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, V shift, V sum, V squares) {
  for (size_t i = 0; i < sizeof(V) / sizeof(shift[0]); i++)
    add_moments(moments, columns, c + i, n, shift[i], sum[i], squares[i]);
}
MG_INLINE void add_moments(double* m, ptrdiff_t columns, ptrdiff_t c, double n, floats shift, floats sum, floats squares) {
  add_moments_of(m, columns, c, n, shift, sum, squares);
}
MG_INLINE void add_moments(double* m, ptrdiff_t columns, ptrdiff_t c, double n, doubles shift, doubles sum, doubles squares) {
  add_moments_of(m, columns, c, n, shift, sum, squares);
}

// The threads' totals lie `apart` doubles from each other. Join them, and all columns too if only one number is `left`.
template <class T>
static void finish_moments(double* totals, ptrdiff_t apart, int threads, ptrdiff_t columns, ptrdiff_t left, double count,
                           T* mean, T* variance) {
  for (int t = 1; t < threads; t++)
    for (ptrdiff_t c = 0; c < columns; c++) {
      const double* of_thread = totals + t * apart + c;
      join_moments(totals, columns, c, of_thread[0], of_thread[columns], of_thread[2 * columns]);
    }
  for (ptrdiff_t c = left; c < columns; c++) join_moments(totals, columns, 0, totals[c], totals[columns + c], totals[2 * columns + c]);
  for (ptrdiff_t c = 0; c < left; c++) {
    if (mean) mean[c] = (T)totals[columns + c];
    if (variance) variance[c] = (T)(totals[2 * columns + c] / count);
  }
}

template <class T>
static void finish_sum(double* totals, ptrdiff_t apart, int threads, ptrdiff_t columns, ptrdiff_t left, double divisor, T* sum) {
  for (int t = 1; t < threads; t++)
    for (ptrdiff_t c = 0; c < columns; c++) totals[c] += totals[t * apart + c];
  for (ptrdiff_t c = left; c < columns; c++) totals[0] += totals[c];
  for (ptrdiff_t c = 0; c < left; c++) sum[c] = (T)(totals[c] / divisor);
}
