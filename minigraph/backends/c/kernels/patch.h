// The part of the source that some lines of a convolution's result read, where no tap falls off the edge.
//
// Lines are numbered through all images. Where the source has to be padded, the lines that a block of the result reads
// are copied, with zeros around, so that the loops over the taps need no bounds.
#pragma once
#include "taps.h"

MG_INLINE ptrdiff_t floor_divided(ptrdiff_t a, ptrdiff_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
MG_INLINE ptrdiff_t length(Range range) { return range.end - range.begin; }

// What is read and what is written: a convolution and its adjoint for the images differ in this only. h, w: of the
// result; channels are those of one group.
struct Sides {
  Conv conv;
  bool adjoint;
  ptrdiff_t source_h, source_w, source_c, h, w, c;

  Sides(const Conv& conv, bool adjoint) : conv(conv), adjoint(adjoint) {
    source_h = adjoint ? conv.oh : conv.h;
    source_w = adjoint ? conv.ow : conv.w;
    source_c = (adjoint ? conv.o : conv.c) / conv.groups;
    h = adjoint ? conv.h : conv.oh;
    w = adjoint ? conv.w : conv.ow;
    c = (adjoint ? conv.c : conv.o) / conv.groups;
  }
  ptrdiff_t lines() const { return conv.n * h; }
  ptrdiff_t depth() const { return conv.kh * conv.kw * source_c; }
  ptrdiff_t vertical_phases() const { return adjoint ? conv.sh : 1; }
  ptrdiff_t horizontal_phases() const { return adjoint ? conv.sw : 1; }
  Axis vertical(ptrdiff_t phase) const {
    return adjoint ? adjoint_axis(phase, h, conv.kh, conv.sh, conv.dh, conv.top)
                   : forward_axis(h, conv.kh, conv.sh, conv.dh, conv.top);
  }
  Axis horizontal(ptrdiff_t phase) const {
    return adjoint ? adjoint_axis(phase, w, conv.kw, conv.sw, conv.dw, conv.left)
                   : forward_axis(w, conv.kw, conv.sw, conv.dw, conv.left);
  }
  // The lines or columns of the source that these of the result read; they may reach over the edge.
  Range read(Range of, ptrdiff_t stride, ptrdiff_t extent, ptrdiff_t pad) const {
    if (!adjoint) return {of.begin * stride - pad, (of.end - 1) * stride - pad + extent};
    return {floor_divided(of.begin + pad - extent + 1, stride), floor_divided(of.end - 1 + pad, stride) + 1};
  }
  Range lines_read(Range of) const { return read(of, conv.sh, (conv.kh - 1) * conv.dh + 1, conv.top); }
  Range columns_read() const { return read({0, w}, conv.sw, (conv.kw - 1) * conv.dw + 1, conv.left); }
};

// How the source lies where it is read: as it is, or as a copy with zeros around.
struct Lay {
  bool copied;
  Range columns;
  ptrdiff_t channels;     // of each pixel that are copied
  ptrdiff_t pixel, line;  // elements from one to the next
};

// A copy of so many channels. Pixels whose distance is a multiple of 2 KiB compete for a few lines of the cache: they
// are moved apart.
template <class T>
static Lay copied(const Sides& s, ptrdiff_t channels) {
  const ptrdiff_t step = s.adjoint ? 1 : s.conv.sw;
  const ptrdiff_t pixel = channels + (channels * step * sizeof(T) % 2048 ? 0 : 64 / sizeof(T));
  return {true, s.columns_read(), channels, pixel, length(s.columns_read()) * pixel};
}

// A copy of all channels of a group if the source has to be padded or its pixels to be moved apart, or else no copy.
template <class T>
static Lay lay_of(const Sides& s) {
  const Range lines = s.lines_read({0, s.h}), columns = s.columns_read();
  const bool padded = lines.begin < 0 || lines.end > s.source_h || columns.begin < 0 || columns.end > s.source_w;
  const Lay copy = copied<T>(s, s.source_c);
  if (padded || copy.pixel > s.source_c) return copy;
  const ptrdiff_t pixel = s.source_c * s.conv.groups;
  return {false, {0, s.source_w}, s.source_c, pixel, s.source_w * pixel};
}

// At most so many lines of the source are read by so many lines of the result, wherever they begin.
MG_INLINE ptrdiff_t lines_copied(const Sides& s, ptrdiff_t lines) {
  const ptrdiff_t images = at_most(s.conv.n, (lines + s.h - 2) / s.h + 1), stride = s.conv.sh;
  const ptrdiff_t more = (s.conv.kh - 1) * s.conv.dh;
  if (s.adjoint) return (lines + images * (more + stride - 2)) / stride + images;
  return lines * stride + images * at_least(0, more + 1 - stride);
}

// Lines of the result to do at a time: some 16 tiles, of which the source stays in the second-level cache.
template <class T>
static ptrdiff_t block_lines(const Sides& s, const Lay& lay) {
  ptrdiff_t lines = at_most(s.lines(), at_least(1, 224 / s.w));
  while (lines > 1 && lines_copied(s, lines) * lay.line * (ptrdiff_t)sizeof(T) > 320 * 1024) lines--;
  return lines >= s.h ? lines / s.h * s.h : divided_up(s.h, divided_up(s.h, lines));
}

// Call f(image, its lines, the lines of the source that they read) for each image that has some of these lines.
template <class F>
static void each_image(const Sides& s, Range lines, const F& f) {
  for (ptrdiff_t next, at = lines.begin; at < lines.end; at = next) {
    const ptrdiff_t image = at / s.h;
    next = at_most(lines.end, (image + 1) * s.h);
    const Range part = {at - image * s.h, next - image * s.h};
    f(image, part, s.lines_read(part));
  }
}

// Copy the columns that are read of one line of the source, with zeros beyond its ends.
template <class T>
static void copy_line(const Sides& s, const Lay& lay, const T* from, T* to) {
  const ptrdiff_t all = s.source_c * s.conv.groups, width = length(lay.columns);
  const ptrdiff_t begin = at_most(at_least(-lay.columns.begin, 0), width);
  const ptrdiff_t end = at_least(begin, at_most(s.source_w - lay.columns.begin, width));
  memset(to, 0, begin * lay.pixel * sizeof(T));
  memset(to + end * lay.pixel, 0, (width - end) * lay.pixel * sizeof(T));
  from += (lay.columns.begin + begin) * all;
  to += begin * lay.pixel;
  if (all == lay.pixel) {
    memcpy(to, from, (end - begin) * all * sizeof(T));
    return;
  }
  for (ptrdiff_t j = begin; j < end; j++, from += all, to += lay.pixel) memcpy(to, from, lay.channels * sizeof(T));
}

// Copy the lines of the source that a block reads, image after image. `source` points to the first channel to copy.
template <class T>
static void copy_block(const Sides& s, const Lay& lay, Range lines, const T* source, T* to) {
  const ptrdiff_t line = s.source_w * s.source_c * s.conv.groups;
  each_image(s, lines, [&](ptrdiff_t image, Range, Range read) {
    for (ptrdiff_t i = read.begin; i < read.end; i++, to += lay.line) {
      if (i < 0 || i >= s.source_h) memset(to, 0, lay.line * sizeof(T));
      else copy_line(s, lay, source + (image * s.source_h + i) * line, to);
    }
  });
}
