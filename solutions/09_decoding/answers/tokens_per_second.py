"""Answer bank of `tokens_per_second`: what else is right, and what each wrong answer reveals."""


def _refuse(texts, bandwidth, peak_flops):
    if texts < 1 or bandwidth <= 0 or peak_flops <= 0:
        raise ValueError("texts must be at least 1, bandwidth and peak_flops positive")


def right_by_rates(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """The smaller of two rates: that of reading and that of computing."""
    _refuse(texts, bandwidth, peak_flops)
    reading = bandwidth / (weight_bytes / texts + cache_bytes)
    computing = peak_flops / (2 * weights)
    return min(reading, computing)


def right_by_bottleneck(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Compares the operations for each byte with what the machine can do of them."""
    _refuse(texts, bandwidth, peak_flops)
    flops, moved = 2 * weights * texts, weight_bytes + texts * cache_bytes
    if flops * bandwidth >= moved * peak_flops:
        return texts * peak_flops / flops
    return texts * bandwidth / moved


def wrong_sum(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Adds the seconds of reading and computing, as if one waited for the other."""
    _refuse(texts, bandwidth, peak_flops)
    return texts / ((weight_bytes + texts * cache_bytes) / bandwidth + 2 * weights * texts / peak_flops)


def wrong_faster_one(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Takes the faster of reading and computing for the bound."""
    _refuse(texts, bandwidth, peak_flops)
    return texts / min((weight_bytes + texts * cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)


def wrong_memory_only(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Leaves computing out, so that many texts have no bound."""
    _refuse(texts, bandwidth, peak_flops)
    return texts * bandwidth / (weight_bytes + texts * cache_bytes)


def wrong_weights_for_each(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Reads the weights anew for every text."""
    _refuse(texts, bandwidth, peak_flops)
    return texts / max(texts * (weight_bytes + cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)


def wrong_one_cache(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Reads one cache, as if all texts shared it."""
    _refuse(texts, bandwidth, peak_flops)
    return texts / max((weight_bytes + cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)


def wrong_each_text(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Tells the tokens of one of the texts, not of all."""
    _refuse(texts, bandwidth, peak_flops)
    return 1 / max((weight_bytes + texts * cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)


def wrong_one_operation(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Counts one operation for a weight, and a MAC has two."""
    _refuse(texts, bandwidth, peak_flops)
    return texts / max((weight_bytes + texts * cache_bytes) / bandwidth, weights * texts / peak_flops)


def wrong_seconds(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Returns the seconds of a step."""
    _refuse(texts, bandwidth, peak_flops)
    return max((weight_bytes + texts * cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)


def wrong_unchecked(weights, weight_bytes, cache_bytes, texts, bandwidth, peak_flops):
    """Returns 0 or less for a machine or a number of texts that makes no sense, where an error is due."""
    if texts < 1 or bandwidth <= 0 or peak_flops <= 0:
        return 0.0
    return texts / max((weight_bytes + texts * cache_bytes) / bandwidth, 2 * weights * texts / peak_flops)
