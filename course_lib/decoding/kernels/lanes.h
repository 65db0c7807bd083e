// Sixteen numbers at once: the few operations that the kernels need, for three kinds of processors.
//
// Which one is compiled is the choice of the flags (see compiling.py): AVX-512 with VNNI, AVX2 with FMA and F16C, or
// plain C++, which a compiler turns into whatever the processor has.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

constexpr int LANES = 16;

// a * b + c in one rounding where the processor can, in two where it cannot: the same for one number and for sixteen.
#if defined(__FMA__) || defined(__aarch64__)
inline float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
inline float multiply_add(float a, float b, float c) { return a * b + c; }
#endif

inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float bfloat_to_float(uint16_t bits) { return bits_to_float(uint32_t(bits) << 16); }

// To bfloat16, to the nearest, ties to even; NaN stays NaN.
inline uint16_t float_to_bfloat(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float half_to_float(uint16_t half) {
    uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
    // with the exponent moved, a multiplication does the rest, for numbers below the normal range as well
    return bits_to_float(sign | float_to_bits(bits_to_float(rest << 13) * 0x1p112f));
}

// To float16, to the nearest, ties to even; what is too large becomes infinity.
inline uint16_t float_to_half(float value) {
    uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (rest >= 0x477ff000) return uint16_t(sign | 0x7c00);
    if (rest < 0x38800000)  // below 2**-14: adding 0.5 moves the bits that stay to the end of the fraction
        return uint16_t(sign | (float_to_bits(bits_to_float(rest) + 0.5f) - 0x3f000000));
    return uint16_t(sign | ((rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13));
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)

#define KERNELS "avx512-vnni"

struct Floats {
    __m512 v;
    static Floats all(float x) { return {_mm512_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Floats load_half(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
    static Floats load_bfloat(const uint16_t* p) {
        return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
};
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

struct Bytes {  // 16 lanes of 4 bytes
    __m512i v;
    static Bytes load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
    Bytes low() const { return {_mm512_and_si512(v, _mm512_set1_epi8(15))}; }
    Bytes high() const { return {_mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))}; }
};

struct Ints {
    __m512i v;
    static Ints all(int32_t x) { return {_mm512_set1_epi32(x)}; }
    // The processor multiplies unsigned by signed bytes. Signed weights get 128 added; `signed_start` takes it away.
    static Ints signed_start(int32_t sum) { return all(-128 * sum); }
    Floats floats() const { return {_mm512_cvtepi32_ps(v)}; }
};
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Bytes from_signed(Bytes weight) { return {_mm512_xor_si512(weight.v, _mm512_set1_epi8(-128))}; }
inline Ints dot_unsigned(Ints sum, Bytes weight, int32_t four) {
    return {_mm512_dpbusd_epi32(sum.v, weight.v, _mm512_set1_epi32(four))};
}
inline Ints dot_signed(Ints sum, Bytes weight, int32_t four) { return dot_unsigned(sum, weight, four); }

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define KERNELS "avx2"

struct Floats {
    __m256 a, b;
    static Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static Floats load_half(const uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
    }
    static Floats load_bfloat(const uint16_t* p) {
        auto widen = [](const uint16_t* q) {
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)q)), 16));
        };
        return {widen(p), widen(p + 8)};
    }
    void store(float* p) const { _mm256_storeu_ps(p, a), _mm256_storeu_ps(p + 8, b); }
};
inline Floats operator*(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats operator+(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats multiply_add(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

struct Bytes {
    __m256i a, b;
    static Bytes load(const uint8_t* p) {
        return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
    }
    Bytes low() const {
        __m256i mask = _mm256_set1_epi8(15);
        return {_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)};
    }
    Bytes high() const {
        __m256i mask = _mm256_set1_epi8(15);
        return {_mm256_and_si256(_mm256_srli_epi16(a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(b, 4), mask)};
    }
};

struct Ints {
    __m256i a, b;
    static Ints all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
    static Ints signed_start(int32_t) { return all(0); }
    Floats floats() const { return {_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)}; }
};
inline Ints operator+(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline Bytes from_signed(Bytes weight) { return weight; }
// Pairs of products are added in 16 bits: 2 * 15 * 127 and 2 * 128 * 127 both stay below 32,768.
inline Ints dot_unsigned(Ints sum, Bytes weight, int32_t four) {
    __m256i x = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(_mm256_maddubs_epi16(weight.a, x), ones)),
            _mm256_add_epi32(sum.b, _mm256_madd_epi16(_mm256_maddubs_epi16(weight.b, x), ones))};
}
inline Ints dot_signed(Ints sum, Bytes weight, int32_t four) {
    __m256i x = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
    auto dot = [&](__m256i w) {
        return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)), ones);
    };
    return {_mm256_add_epi32(sum.a, dot(weight.a)), _mm256_add_epi32(sum.b, dot(weight.b))};
}

#else

#define KERNELS "portable"

struct Floats {
    float v[LANES];
    static Floats all(float x) {
        Floats made;
        for (float& each : made.v) each = x;
        return made;
    }
    static Floats load(const float* p) {
        Floats made;
        std::memcpy(made.v, p, sizeof made.v);
        return made;
    }
    static Floats load_half(const uint16_t* p) {
        Floats made;
        for (int i = 0; i < LANES; i++) made.v[i] = half_to_float(p[i]);
        return made;
    }
    static Floats load_bfloat(const uint16_t* p) {
        Floats made;
        for (int i = 0; i < LANES; i++) made.v[i] = bfloat_to_float(p[i]);
        return made;
    }
    void store(float* p) const { std::memcpy(p, v, sizeof v); }
};
inline Floats operator*(Floats a, const Floats& b) {
    for (int i = 0; i < LANES; i++) a.v[i] *= b.v[i];
    return a;
}
inline Floats operator+(Floats a, const Floats& b) {
    for (int i = 0; i < LANES; i++) a.v[i] += b.v[i];
    return a;
}
inline Floats multiply_add(const Floats& a, const Floats& b, Floats c) {
    for (int i = 0; i < LANES; i++) c.v[i] = multiply_add(a.v[i], b.v[i], c.v[i]);
    return c;
}

struct Bytes {
    uint8_t v[4 * LANES];
    static Bytes load(const uint8_t* p) {
        Bytes made;
        std::memcpy(made.v, p, sizeof made.v);
        return made;
    }
    Bytes low() const {
        Bytes made;
        for (int i = 0; i < 4 * LANES; i++) made.v[i] = v[i] & 15;
        return made;
    }
    Bytes high() const {
        Bytes made;
        for (int i = 0; i < 4 * LANES; i++) made.v[i] = v[i] >> 4;
        return made;
    }
};

struct Ints {
    int32_t v[LANES];
    static Ints all(int32_t x) {
        Ints made;
        for (int32_t& each : made.v) each = x;
        return made;
    }
    static Ints signed_start(int32_t) { return all(0); }
    Floats floats() const {
        Floats made;
        for (int i = 0; i < LANES; i++) made.v[i] = float(v[i]);
        return made;
    }
};
inline Ints operator+(Ints a, const Ints& b) {
    for (int i = 0; i < LANES; i++) a.v[i] += b.v[i];
    return a;
}
inline Bytes from_signed(const Bytes& weight) { return weight; }
template <class Number>
inline Ints dot(Ints sum, const Bytes& weight, int32_t four) {
    int8_t x[4];
    std::memcpy(x, &four, sizeof x);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++) sum.v[i] += int32_t(Number(weight.v[4 * i + j])) * x[j];
    return sum;
}
inline Ints dot_unsigned(Ints sum, const Bytes& weight, int32_t four) { return dot<uint8_t>(sum, weight, four); }
inline Ints dot_signed(Ints sum, const Bytes& weight, int32_t four) { return dot<int8_t>(sum, weight, four); }

#endif

// The sum of sixteen numbers, by halves: always in the same order.
inline float sum_of(const Floats& x) {
#if defined(__AVX512VNNI__) && defined(__AVX512DQ__)
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
#elif defined(__AVX2__) && defined(__FMA__)
    __m256 eight = _mm256_add_ps(x.a, x.b);
#endif
#if defined(__AVX2__) && defined(__FMA__)
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float v[LANES];
    x.store(v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
#endif
}

// e**x, relative error about 1e-7: 2**n times a polynomial on [-ln 2 / 2, ln 2 / 2]. A loop over it is vectorised.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = std::nearbyint(x * 1.44269504f);
    float r = multiply_add(n, -0.693145752f, x);
    r = multiply_add(n, -1.42860677e-6f, r);
    float p = 1.9875691500e-4f;
    p = multiply_add(p, r, 1.3981999507e-3f);
    p = multiply_add(p, r, 8.3334519073e-3f);
    p = multiply_add(p, r, 4.1665795894e-2f);
    p = multiply_add(p, r, 1.6666665459e-1f);
    p = multiply_add(p, r, 5.0000001201e-1f);
    p = multiply_add(multiply_add(p, r * r, r), 1.0f, 1.0f);
    return p * bits_to_float(uint32_t(int32_t(n) + 127) << 23);
}
