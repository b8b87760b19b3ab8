// The arithmetic of one element, for numbers and for vectors alike: what generated loops are written in.
#pragma once
#include "functions.h"
#include "activations.h"

// An epilogue whose rows begin further down: one matrix of a batch.
template <class E> struct Below {
  E& epilogue;
  ptrdiff_t above;
  template <class V> MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, V value) const { epilogue.put(above + r, c, value); }
  void done(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, const Team& team) const {
    epilogue.done(above + first, rows, column, columns, team);
  }
};
