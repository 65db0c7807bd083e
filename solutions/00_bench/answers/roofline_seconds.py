"""Answer bank of `roofline_seconds`: what else is right, and what each wrong answer reveals."""


def right_by_intensity(flops, bytes_moved, peak_flops, bandwidth):
    """Compares the computation's flops per byte with the machine's, as the picture of the roofline does."""
    if peak_flops <= 0:
        raise ValueError(f"peak_flops must be positive, got {peak_flops}")
    if bandwidth <= 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    if flops * bandwidth < peak_flops * bytes_moved:
        return bytes_moved / bandwidth, "memory"
    return flops / peak_flops, "compute"


def wrong_sum(flops, bytes_moved, peak_flops, bandwidth):
    """Adds the two times, as if the machine could not compute and move at once."""
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError("peak_flops and bandwidth must be positive")
    to_compute, to_move = flops / peak_flops, bytes_moved / bandwidth
    return to_compute + to_move, "compute" if to_compute >= to_move else "memory"


def wrong_faster_one(flops, bytes_moved, peak_flops, bandwidth):
    """Takes the shorter of the two times."""
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError("peak_flops and bandwidth must be positive")
    to_compute, to_move = flops / peak_flops, bytes_moved / bandwidth
    return min(to_compute, to_move), "compute" if to_compute <= to_move else "memory"


def wrong_name(flops, bytes_moved, peak_flops, bandwidth):
    """Names the part that has to wait instead of the one that decides."""
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError("peak_flops and bandwidth must be positive")
    to_compute, to_move = flops / peak_flops, bytes_moved / bandwidth
    return max(to_compute, to_move), "memory" if to_compute >= to_move else "compute"


def wrong_compute_only(flops, bytes_moved, peak_flops, bandwidth):
    """Forgets that the bytes have to come from somewhere."""
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError("peak_flops and bandwidth must be positive")
    return flops / peak_flops, "compute"


def wrong_twice(flops, bytes_moved, peak_flops, bandwidth):
    """Doubles the flops, as if it were given MACs."""
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError("peak_flops and bandwidth must be positive")
    to_compute, to_move = 2 * flops / peak_flops, bytes_moved / bandwidth
    return max(to_compute, to_move), "compute" if to_compute >= to_move else "memory"


def wrong_unchecked(flops, bytes_moved, peak_flops, bandwidth):
    """Accepts a machine of zero or negative speed."""
    if not peak_flops or not bandwidth:
        return float("inf"), "compute" if not peak_flops else "memory"
    to_compute, to_move = flops / peak_flops, bytes_moved / bandwidth
    return max(to_compute, to_move), "compute" if to_compute >= to_move else "memory"
