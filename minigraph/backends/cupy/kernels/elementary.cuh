// The arithmetic of one element, for numbers and for a few of them side by side: what generated loops are written in.
#pragma once
#include "functions.cuh"
#include "comparisons.h"
#include "activations.h"
