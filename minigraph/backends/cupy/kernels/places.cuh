// Where the elements of arrays lie whose axes are not one behind the other in memory.
#pragma once
#include "types.cuh"

// Numbers below 2³¹ are divided four times as fast.
template <bool SMALL> struct CounterOf { typedef Index type; };
template <> struct CounterOf<true> { typedef unsigned type; };
template <Index SIZE> using Counter = typename CounterOf<(SIZE < 1L << 31)>::type;

// Some axes, the last one first, as pairs (size, stride): `at(i)` is where element number i of them is. Sizes are
// template arguments, so that no division is by a number that is not a constant.
template <Index... pairs> struct Places {
  static constexpr Index SIZE = 1;
  template <class I> static MG_INLINE Index within(I) { return 0; }
  static MG_INLINE Index at(Index) { return 0; }
};
template <Index size, Index stride, Index... outer> struct Places<size, stride, outer...> {
  static constexpr Index SIZE = size * Places<outer...>::SIZE;
  template <class I> static MG_INLINE Index within(I i) {
    if constexpr (sizeof...(outer) == 0) return (Index)i * stride;
    else return (Index)(i % (I)size) * stride + Places<outer...>::within((I)(i / (I)size));
  }
  static MG_INLINE Index at(Index i) { return within((Counter<SIZE>)i); }
};

// The same of a larger array that x is laid into, as five numbers an axis: its size; where x begins, and its steps; how
// many of x there are, and their stride. `at(i)` is the element of x that lands there, or −1.
template <Index... numbers> struct Laid {
  static constexpr Index SIZE = 1;
  template <class I> static MG_INLINE Index within(I) { return 0; }
  static MG_INLINE Index at(Index) { return 0; }
};
template <Index size, Index start, Index step, Index count, Index stride, Index... outer>
struct Laid<size, start, step, count, stride, outer...> {
  static constexpr Index SIZE = size * Laid<outer...>::SIZE;
  template <class I> static MG_INLINE Index within(I i) {
    const Index beyond = sizeof...(outer) == 0 ? (Index)i - start : (Index)(i % (I)size) - start;
    if (beyond % step != 0 || beyond / step < 0 || beyond / step >= count) return -1;
    const Index rest = Laid<outer...>::within((I)(i / (I)size));
    return rest < 0 ? -1 : rest + beyond / step * stride;
  }
  static MG_INLINE Index at(Index i) { return within((Counter<SIZE>)i); }
};
