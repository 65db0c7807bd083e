"""Answer bank of `integer_conv2d`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _refuse(codes, weight, bias):
    if codes.dtype not in (torch.uint8, torch.int8) or weight.dtype != torch.int8 or bias.dtype != torch.int32:
        raise TypeError("codes must be uint8 or int8, weight int8 and bias int32")


def _convolve(codes, weight, bias, border, stride, padding):
    """A convolution of integers, place by place of the kernel; around the image stands `border`."""
    rows, columns = weight.shape[2:]
    padded = F.pad(codes.int(), (padding,) * 4, value=border)
    height, width = (padded.shape[2] - rows) // stride + 1, (padded.shape[3] - columns) // stride + 1
    total = bias.int().view(1, -1, 1, 1).expand(len(codes), -1, height, width)
    for i in range(rows):
        for j in range(columns):
            seen = padded[:, :, i : i + height * stride : stride, j : j + width * stride : stride]
            seen = seen[:, :, :height, :width]
            total = total + (seen.permute(0, 2, 3, 1) @ weight[:, :, i, j].int().T).permute(0, 3, 1, 2)
    return total


def right_place_by_place(codes, weight, bias, zero_point, stride=1, padding=0):
    """Adds up over the places of the kernel, all patches at once."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, bias, zero_point, stride, padding)


def right_in_doubles(codes, weight, bias, zero_point, stride=1, padding=0):
    """Lets float64 do it, which holds these integers exactly."""
    _refuse(codes, weight, bias)
    padded = F.pad(codes.double(), (padding,) * 4, value=zero_point)
    return F.conv2d(padded, weight.double(), bias.double(), stride).round().to(torch.int32)


def wrong_border_of_zeros(codes, weight, bias, zero_point, stride=1, padding=0):
    """Pads with the code 0, which does not stand for the number 0."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, bias, 0, stride, padding)


def wrong_zero_point_twice(codes, weight, bias, zero_point, stride=1, padding=0):
    """Takes the zero point off the codes, although the bias has done that already."""
    _refuse(codes, weight, bias)
    return _convolve(codes.int() - zero_point, weight, bias, 0, stride, padding)


def wrong_in_8_bits(codes, weight, bias, zero_point, stride=1, padding=0):
    """Multiplies in 8 bits, where each product wraps around."""
    _refuse(codes, weight, bias)
    rows, columns = weight.shape[2:]
    patches = F.pad(codes.int(), (padding,) * 4, value=zero_point).unfold(2, rows, stride).unfold(3, columns, stride)
    products = patches.to(torch.int8).unsqueeze(1) * weight.view(1, *weight.shape[:2], 1, 1, rows, columns)
    return products.sum((2, 5, 6), dtype=torch.int32) + bias.view(1, -1, 1, 1)


def wrong_signed_codes(codes, weight, bias, zero_point, stride=1, padding=0):
    """Reads unsigned codes as signed ones, so that 200 becomes -56."""
    _refuse(codes, weight, bias)
    return _convolve(codes.to(torch.int8), weight, bias, zero_point, stride, padding)


def wrong_flipped(codes, weight, bias, zero_point, stride=1, padding=0):
    """Turns the kernel round, as mathematicians define a convolution."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight.flip(2, 3), bias, zero_point, stride, padding)


def wrong_without_bias(codes, weight, bias, zero_point, stride=1, padding=0):
    """Forgets the bias."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, 0 * bias, zero_point, stride, padding)


def wrong_every_place(codes, weight, bias, zero_point, stride=1, padding=0):
    """Visits every place, whatever the stride."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, bias, zero_point, 1, padding)


def wrong_no_padding(codes, weight, bias, zero_point, stride=1, padding=0):
    """Ignores the padding."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, bias, zero_point, stride, 0)


def wrong_in_float32(codes, weight, bias, zero_point, stride=1, padding=0):
    """Adds up in float32, which holds whole numbers only up to 24 bits."""
    _refuse(codes, weight, bias)
    padded = F.pad(codes.float(), (padding,) * 4, value=zero_point)
    return F.conv2d(padded, weight.float(), bias.float(), stride).round().to(torch.int32)


def wrong_pads_width_only(codes, weight, bias, zero_point, stride=1, padding=0):
    """Pads the rows at their two ends, and adds no row above and below."""
    _refuse(codes, weight, bias)
    padded = F.pad(codes.int(), (padding, padding), value=zero_point)
    return _convolve(padded, weight, bias, 0, stride, 0)


def wrong_channels_last(codes, weight, bias, zero_point, stride=1, padding=0):
    """Leaves the outputs in the last dimension, where the product has put them."""
    _refuse(codes, weight, bias)
    return _convolve(codes, weight, bias, zero_point, stride, padding).permute(0, 2, 3, 1)


def wrong_mixed_order(codes, weight, bias, zero_point, stride=1, padding=0):
    """Flattens patches and filters in different orders."""
    _refuse(codes, weight, bias)
    rows, columns = weight.shape[2:]
    padded = F.pad(codes.int(), (padding,) * 4, value=zero_point)
    patches = padded.unfold(2, rows, stride).unfold(3, columns, stride).permute(0, 2, 3, 4, 5, 1).flatten(3)
    return (patches @ weight.int().flatten(1).T + bias).permute(0, 3, 1, 2)


def wrong_unchecked(codes, weight, bias, zero_point, stride=1, padding=0):
    """Takes floats without a word."""
    return _convolve(codes.int(), weight.to(torch.int8), bias.int(), zero_point, stride, padding)
