// Which taps of a kernel meet which pixels: one axis of a convolution, or of its adjoint.
//
// In a convolution with stride s, dilation d and padding p, position i of the output reads the image at i·s + t·d − p,
// for each tap t. The adjoint goes the other way: position i of the image receives from the output at (i + p − t·d)/s,
// from those taps t for which that is whole. These are the same for all positions that are s apart, so the adjoint
// falls into s phases, each of which is a convolution of stride 1 with some of the taps, in reverse.
#pragma once
#include "vector.h"

struct Axis {
  ptrdiff_t first, step, count;        // positions of the result: first + step·u, for u < count
  ptrdiff_t taps, tap, tap_step;       // taps of the kernel: tap + tap_step·a, for a < taps
  ptrdiff_t source, source_step, reach;  // u reads at a: source + source_step·u + reach·a

  // The u whose positions lie in a range.
  Range within(Range positions) const {
    return {at_most(count, divided_up(at_least(positions.begin - first, 0), step)),
            at_most(count, divided_up(at_least(positions.end - first, 0), step))};
  }
};

MG_INLINE ptrdiff_t greatest_common_divisor(ptrdiff_t a, ptrdiff_t b) {
  while (b) {
    const ptrdiff_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

MG_INLINE Axis forward_axis(ptrdiff_t outputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t pad) {
  return {0, 1, outputs, taps, 0, 1, -pad, stride, dilation};
}

MG_INLINE Axis adjoint_axis(ptrdiff_t phase, ptrdiff_t inputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation,
                            ptrdiff_t pad) {
  const ptrdiff_t first = (stride - (pad - phase) % stride) % stride;
  const ptrdiff_t count = divided_up(at_least(inputs - first, 0), stride);
  const ptrdiff_t tap_step = stride / greatest_common_divisor(stride, dilation);
  ptrdiff_t tap = 0;
  while (tap < tap_step && (tap * dilation) % stride != phase) tap++;
  if (tap == tap_step || tap >= taps) return {first, stride, count, 0, 0, 0, 0, 1, 0};
  const ptrdiff_t met = (taps - 1 - tap) / tap_step + 1, last = tap + (met - 1) * tap_step;
  return {first, stride, count, met, last, -tap_step, (first + pad - last * dilation) / stride, 1,
          tap_step * dilation / stride};
}
