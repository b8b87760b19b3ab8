// Convolutions of each channel by itself: no matrix product to be had. C is 1 in `Windows`, and GROUPS are the channels;
// kernels lie [tap][channel]. A thread has V neighbouring channels.
#pragma once
#include "windows.cuh"

// y = Σ x·w, + bias of the channel, + residual, max(·, 0); the last three where they are asked for.
template <class G, int V, Index IMAGES, bool BIAS, bool RESIDUAL, bool RELU, class T>
MG_INLINE void depthwise(const T* x, const T* w, const T* bias, const T* residual, T* y) {
  constexpr Index SIZE = IMAGES * G::OUT_H * G::OUT_W * (G::CHANNELS / V);
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    N rest = (N)i;
    const int c = rest % (N)(G::CHANNELS / V) * V;
    rest /= (N)(G::CHANNELS / V);
    const int j_out = rest % (N)G::OUT_W;
    rest /= (N)G::OUT_W;
    const int i_out = rest % (N)G::OUT_H;
    const Index image = rest / (N)G::OUT_H;
    Compute<T> sum[V] = {};
#pragma unroll
    for (int r = 0; r < G::R; r++)
#pragma unroll
      for (int s = 0; s < G::S; s++) {
        const int h = G::row(i_out, r), column = G::column(j_out, s);
        if (!G::inside(h, column)) continue;
        const Pack<T, V> value = load<V>(x + ((image * G::H + h) * G::W + column) * G::CHANNELS + c);
        const Pack<T, V> weight = load<V>(w + (r * G::S + s) * G::CHANNELS + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += to_float(value.at[v]) * to_float(weight.at[v]);
      }
    Pack<T, V> added = zeros<T, V>(), shift = zeros<T, V>(), result;
    if constexpr (BIAS) shift = load<V>(bias + c);
    if constexpr (RESIDUAL) added = load<V>(residual + i * V);
#pragma unroll
    for (int v = 0; v < V; v++) {
      const Compute<T> total = sum[v] + to_float(shift.at[v]) + to_float(added.at[v]);
      result.at[v] = from_float<T>(RELU && total < 0 ? Compute<T>(0) : total);
    }
    store<V>(y + i * V, result);
  }
}

// x = Σ y·w over the windows that meet a pixel.
template <class G, int V, Index IMAGES, class T> MG_INLINE void depthwise_transpose(const T* y, const T* w, T* x) {
  constexpr Index SIZE = IMAGES * G::H * G::W * (G::CHANNELS / V);
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    N rest = (N)i;
    const int c = rest % (N)(G::CHANNELS / V) * V;
    rest /= (N)(G::CHANNELS / V);
    const int column = rest % (N)G::W;
    rest /= (N)G::W;
    const int h = rest % (N)G::H;
    const Index image = rest / (N)G::H;
    Compute<T> sum[V] = {};
#pragma unroll
    for (int r = 0; r < G::R; r++)
#pragma unroll
      for (int s = 0; s < G::S; s++) {
        const int i_out = G::window_down(h, r), j_out = G::window_across(column, s);
        if (i_out < 0 || j_out < 0) continue;
        const Pack<T, V> value = load<V>(y + ((image * G::OUT_H + i_out) * G::OUT_W + j_out) * G::CHANNELS + c);
        const Pack<T, V> weight = load<V>(w + (r * G::S + s) * G::CHANNELS + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += to_float(value.at[v]) * to_float(weight.at[v]);
      }
    Pack<T, V> result;
#pragma unroll
    for (int v = 0; v < V; v++) result.at[v] = from_float<T>(sum[v]);
    store<V>(x + i * V, result);
  }
}

// sums[part][tap][channel] = Σ x·y over the part's windows: each PARTS-th one, so that neighbours read neighbours.
template <class G, int V, Index IMAGES, Index PARTS, class T>
MG_INLINE void depthwise_sums(const T* x, const T* y, Compute<T>* sums) {
  constexpr Index WINDOWS = IMAGES * G::OUT_H * G::OUT_W, SIZE = PARTS * G::TAPS * (G::CHANNELS / V);
  typedef Counter<WINDOWS> P;
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    N rest = (N)i;
    const int c = rest % (N)(G::CHANNELS / V) * V;
    rest /= (N)(G::CHANNELS / V);
    const int s = rest % (N)G::S;
    rest /= (N)G::S;
    const int r = rest % (N)G::R;
    Compute<T> sum[V] = {};
    for (Index p = rest / (N)G::R; p < WINDOWS; p += PARTS) {
      const P above = (P)p / (P)G::OUT_W;
      const int h = G::row(above % (P)G::OUT_H, r), w = G::column((P)p % (P)G::OUT_W, s);
      if (!G::inside(h, w)) continue;
      const Index image = above / (P)G::OUT_H;
      const Pack<T, V> left = load<V>(x + ((image * G::H + h) * G::W + w) * G::CHANNELS + c);
      const Pack<T, V> right = load<V>(y + p * G::CHANNELS + c);
#pragma unroll
      for (int v = 0; v < V; v++) sum[v] += to_float(left.at[v]) * to_float(right.at[v]);
    }
#pragma unroll
    for (int v = 0; v < V; v++) sums[i * V + v] = sum[v];
  }
}

// w[tap][channel] = the sum over all parts, in order.
template <Index SIZE, Index PARTS, class T> MG_INLINE void add_parts(const Compute<T>* sums, T* w) {
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    Compute<T> sum = 0;
#pragma unroll 8
    for (Index part = 0; part < PARTS; part++) sum += sums[part * SIZE + i];
    w[i] = from_float<T>(sum);
  }
}
