"""Many images at once, in torch, on a GPU or wherever tensors live.

The parameters and the random numbers are those of the kernels for the CPU. Contours come out the same but for the
rounding of sums; fractals are drawn by other orbits of the same system, so their points differ and their distribution
does not.
"""
