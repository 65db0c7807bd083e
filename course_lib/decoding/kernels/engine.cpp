// A Llama in one call: tokens go in, logits come out. See engine.py for how it is used, lanes.h for the instructions.
//
// A matrix is stored in panels of 16 rows, so that a vector register holds one number of each row: what is added up is
// added up in the same order for one token and for a hundred, on one thread and on sixteen. So a token's logits are the
// same to the last bit, whatever else is computed beside it.

#include "lanes.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int BLOCK = 32;   // columns that share a scale
constexpr int TILE = 8;     // tokens that one pass over a panel serves
constexpr int CHUNK = 128;  // tokens that go through all layers together
constexpr int LARGEST_HEAD = 256;

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };

// ---------------------------------------------------------------------------------------------------- matrices

// A (rows, columns) matrix in panels: 16 rows, columns one after another; rows and columns are filled up with zeros.
// FLOAT32, BFLOAT16: for each column 16 numbers. INT8, INT4: for each block of 32 columns the bytes of the codes,
// (8 or 4 times 16 lanes of 4 bytes), then 16 float16 scales, and for INT4 16 float16 offsets: weight = scale * code
// (+ offset), which is what GGUF's blocks Q8_0 and Q4_1 hold.
struct Matrix {
    int kind = -1, rows = 0, columns = 0;
    const uint8_t* data = nullptr;

    int panels() const { return (rows + LANES - 1) / LANES; }
    int blocks() const { return (columns + BLOCK - 1) / BLOCK; }
    size_t block_bytes() const {
        const size_t bytes[] = {BLOCK * LANES * 4, BLOCK * LANES * 2, BLOCK * LANES + 2 * LANES, BLOCK * LANES / 2 + 4 * LANES};
        return bytes[kind];
    }
    const uint8_t* panel(int i) const { return data + size_t(i) * blocks() * block_bytes(); }
};

// The rows that a matrix is multiplied with: as they are, and rounded to 8 bits in blocks of 32.
struct Inputs {
    int columns = 0, blocks = 0;
    std::vector<float> numbers;      // (tokens, 32 * blocks), zeros after the last column
    std::vector<int8_t> codes;       // the same shape
    std::vector<float> scale, sum;   // (tokens, blocks): number = scale * code; sum = scale * the sum of the codes
    std::vector<int32_t> code_sum;   // (tokens, blocks)

    void resize(int tokens, int width) {
        columns = width, blocks = (width + BLOCK - 1) / BLOCK;
        numbers.assign(size_t(tokens) * blocks * BLOCK, 0.0f);
        codes.assign(numbers.size(), 0);
        scale.assign(size_t(tokens) * blocks, 0.0f);
        sum = scale;
        code_sum.assign(scale.size(), 0);
    }
    float* row(int token) { return numbers.data() + size_t(token) * blocks * BLOCK; }

    // Round blocks [first, last) of a token: scale = largest magnitude / 127.
    void round(int token, int first, int last) {
        for (int b = first; b < last; b++) {
            const float* x = row(token) + b * BLOCK;
            int8_t* code = codes.data() + (size_t(token) * blocks + b) * BLOCK;
            float largest = 0.0f;
            for (int i = 0; i < BLOCK; i++) largest = std::max(largest, std::fabs(x[i]));
            float step = largest / 127.0f, per_step = largest > 0.0f ? 127.0f / largest : 0.0f;
            int32_t total = 0;
            for (int i = 0; i < BLOCK; i++) {
                int32_t rounded = int32_t(std::nearbyint(x[i] * per_step));
                code[i] = int8_t(rounded);
                total += rounded;
            }
            size_t at = size_t(token) * blocks + b;
            scale[at] = step, code_sum[at] = total, sum[at] = step * float(total);
        }
    }
};

inline int32_t four_codes(const int8_t* codes) {
    int32_t four;
    std::memcpy(&four, codes, sizeof four);
    return four;
}

// The products of a block's codes with T tokens' codes are added up in int32, which is exact in any order.
template <int T, class Dot>
inline Ints dot_block(const Bytes* quads, const int8_t* code, Ints start, Dot dot) {
    Ints even = start, odd = Ints::all(0);
    for (int i = 0; i < 8; i += 2) {
        even = dot(even, quads[i], four_codes(code + 4 * i));
        if (T > 2) even = dot(even, quads[i + 1], four_codes(code + 4 * i + 4));  // enough to do at once as it is
        else odd = dot(odd, quads[i + 1], four_codes(code + 4 * i + 4));
    }
    return T > 2 ? even : even + odd;
}

// Ask for a block some time before it is read. Where it serves many tokens, the processor does not foresee by itself that
// it will be read; where it serves one or two, it does, and asking costs more than it brings.
template <int T, int BYTES>
inline void prefetch(const uint8_t* weight) {
    constexpr int LINE = 64, AHEAD = 8192;  // bytes; the best of those that were tried
    if (T < 3) return;
    for (int i = 0; i < BYTES; i += LINE) __builtin_prefetch(weight + AHEAD + i, 0, 2);
}

// One panel times T tokens: total[t] holds 16 rows of the product. Blocks and columns go in order.
template <int KIND, int T>
void multiply_panel(const Matrix& matrix, int panel, const Inputs& x, int token, Floats* total) {
    const uint8_t* weight = matrix.panel(panel);
    const size_t blocks = matrix.blocks(), first = size_t(token) * blocks;
    Floats sum[T];
    for (int t = 0; t < T; t++) sum[t] = Floats::all(0.0f);
    if (KIND == INT4) {
        for (size_t b = 0; b < blocks; b++, weight += BLOCK * LANES / 2 + 4 * LANES) {
            prefetch<T, BLOCK * LANES / 2 + 4 * LANES>(weight);
            Bytes quads[8];
            for (int i = 0; i < 4; i++) {
                Bytes pair = Bytes::load(weight + 4 * LANES * i);
                quads[i] = pair.low(), quads[4 + i] = pair.high();
            }
            const uint16_t* halves = (const uint16_t*)(weight + BLOCK * LANES / 2);
            Floats scale = Floats::load_half(halves), offset = Floats::load_half(halves + LANES);
            for (int t = 0; t < T; t++) {
                const size_t at = first + t * blocks + b;
                Ints products = dot_block<T>(quads, x.codes.data() + at * BLOCK, Ints::all(0), dot_unsigned);
                sum[t] = multiply_add(products.floats(), scale * Floats::all(x.scale[at]), sum[t]);
                sum[t] = multiply_add(offset, Floats::all(x.sum[at]), sum[t]);
            }
        }
    } else if (KIND == INT8) {
        for (size_t b = 0; b < blocks; b++, weight += BLOCK * LANES + 2 * LANES) {
            prefetch<T, BLOCK * LANES + 2 * LANES>(weight);
            Bytes quads[8];
            for (int i = 0; i < 8; i++) quads[i] = from_signed(Bytes::load(weight + 4 * LANES * i));
            Floats scale = Floats::load_half((const uint16_t*)(weight + BLOCK * LANES));
            for (int t = 0; t < T; t++) {
                const size_t at = first + t * blocks + b;
                Ints products = dot_block<T>(quads, x.codes.data() + at * BLOCK, Ints::signed_start(x.code_sum[at]), dot_signed);
                sum[t] = multiply_add(products.floats(), scale * Floats::all(x.scale[at]), sum[t]);
            }
        }
    } else {
        for (size_t c = 0; c < blocks * BLOCK; c++) {
            Floats column = KIND == FLOAT32 ? Floats::load((const float*)weight + c * LANES) : Floats::load_bfloat((const uint16_t*)weight + c * LANES);
            for (int t = 0; t < T; t++) sum[t] = multiply_add(column, Floats::all(x.numbers[(first + t * blocks) * BLOCK + c]), sum[t]);
        }
    }
    for (int t = 0; t < T; t++) total[t] = sum[t];
}

template <int T = TILE>
void multiply_tile(const Matrix& matrix, int panel, const Inputs& x, int token, int tokens, Floats* total) {
    if constexpr (T > 1) {
        if (tokens < T) return multiply_tile<T - 1>(matrix, panel, x, token, tokens, total);
    }
    switch (matrix.kind) {
        case INT4: return multiply_panel<INT4, T>(matrix, panel, x, token, total);
        case INT8: return multiply_panel<INT8, T>(matrix, panel, x, token, total);
        case BFLOAT16: return multiply_panel<BFLOAT16, T>(matrix, panel, x, token, total);
        default: return multiply_panel<FLOAT32, T>(matrix, panel, x, token, total);
    }
}

// ------------------------------------------------------------------------------------------------------ threads

inline void pause_a_moment() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Threads that help with a job: the caller deals out pieces of work, whoever has time takes some. The caller waits for
// the pieces, not for the helpers: one that the system does not let run, because others use the processor, holds nobody
// up. Helpers look for work for a moment, then sleep until the next call.
class Crew {
   public:
    explicit Crew(int size) : size_(size) {
        for (int member = 1; member < size; member++) helpers_.emplace_back([this, member] { help(member); });
    }
    ~Crew() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ended_ = true;
        }
        wake_.notify_all();
        for (std::thread& helper : helpers_) helper.join();
    }

    // Between `begin` and `end` work may come at any moment, and helpers stay awake.
    void begin() {
        if (size_ == 1) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            busy_ = true;
        }
        wake_.notify_all();
    }
    void end() { busy_ = false; }

    // Call function(piece, member) for each of `count` pieces, `few` or fewer of them by the caller alone.
    template <class Function>
    void deal(int count, int few, Function&& function) {
        if (size_ == 1 || count <= few) {
            for (int piece = 0; piece < count; piece++) function(piece, 0);
            return;
        }
        Job& job = jobs_[++number_ % JOBS];
        job.call = [](void* what, int first, int last, int member) {
            for (int piece = first; piece < last; piece++) (*(std::remove_reference_t<Function>*)what)(piece, member);
        };
        job.what = &function, job.count = count, job.share = std::max(1, count / (4 * size_));
        done_ = 0;
        next_.store(uint64_t(number_) << 32, std::memory_order_release);
        take(0);
        for (int tries = 0; done_.load(std::memory_order_acquire) < count; tries++) wait_a_moment(tries);
    }

   private:
    static constexpr int JOBS = 8;
    struct Job {
        std::atomic<void (*)(void*, int, int, int)> call{nullptr};
        std::atomic<void*> what{nullptr};
        std::atomic<int> count{0}, share{1};
    };

    static void wait_a_moment(int tries) {
        if (tries < 2000) pause_a_moment();
        else std::this_thread::yield();
    }

    // Take pieces of the present job until none is left. `next_` holds the job's number and the first piece that nobody
    // has: who has looked at a job that is over by now fails to take a piece of it.
    void take(int member) {
        for (;;) {
            uint64_t next = next_.load(std::memory_order_acquire);
            const Job& job = jobs_[(next >> 32) % JOBS];
            const auto call = job.call.load();
            void* const what = job.what;
            const int first = int(uint32_t(next)), count = job.count, share = job.share;
            if (first >= count) return;
            if (!next_.compare_exchange_weak(next, next + share, std::memory_order_acq_rel)) continue;
            const int last = std::min(first + share, count);
            call(what, first, last, member);
            done_.fetch_add(last - first, std::memory_order_release);
        }
    }

    void help(int member) {
        for (int tries = 0; !ended_;) {
            const uint64_t before = next_.load(std::memory_order_relaxed);
            take(member);
            tries = next_.load(std::memory_order_relaxed) == before ? tries + 1 : 0;
            wait_a_moment(tries);
            if (tries > 3000 && !busy_) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return busy_ || ended_; });
                tries = 0;
            }
        }
    }

    const int size_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<bool> busy_{false}, ended_{false};
    std::atomic<uint64_t> next_{0};
    std::atomic<int> done_{0};
    uint32_t number_ = 0;
    Job jobs_[JOBS];
    std::vector<std::thread> helpers_;  // the last member: helpers see the others whole
};

// ------------------------------------------------------------------------------------------------------- engine

struct Layer {
    Matrix query_key_value, join, gate_up, down;
    std::vector<float> attention_norm, feed_norm;
};

}  // namespace

extern "C" {

struct Shape {
    int32_t vocabulary, width, layers, heads, key_value_heads, head_width, inner;
    float rope_base, norm_eps;
};

// What one call computes: `count` tokens, each with its position, the place for its key and value, and the places that it
// looks at: looked_at[first[i]] and the looks[i] - 1 that follow. All later tokens of the same text look at the first
// common[i] of them, too. `rows` names the tokens whose logits are wanted.
struct Batch {
    int32_t count, wanted, layers, hidden, half;
    const int32_t *tokens, *positions, *slot, *looked_at, *first, *looks, *text, *common, *rows;
    float* out;            // (wanted, vocabulary), or (wanted, width) of the last norm's output
    int64_t stride;        // from one row of `out` to the next
    void *keys, *values;   // (groups, layers, group, key_value_heads, padded head width); a place is a row of layer 0,
    int64_t group;         // counted in rows of (key_value_heads, padded head width), and `group` rows on is the next layer
};

}  // extern "C"

namespace {

struct Engine {
    Shape shape;
    Crew crew;
    Matrix embedding;
    std::vector<float> last_norm;
    std::vector<Layer> layers;
    std::vector<float> inverse_frequency;
    int head_space;  // the head's width, filled up to 16

    // what one chunk of tokens needs
    std::vector<float> x, qkv, turn;
    Inputs normed, attended, inner, chosen;
    std::vector<std::vector<float>> weights;  // of attention, for each thread

    Engine(const Shape& s, int threads) : shape(s), crew(threads), layers(s.layers), weights(threads) {
        head_space = (s.head_width + LANES - 1) / LANES * LANES;
        for (int i = 0; i < s.head_width / 2; i++)
            inverse_frequency.push_back(float(1.0 / std::pow(double(s.rope_base), 2.0 * i / s.head_width)));
    }

    int queries() const { return shape.heads * shape.head_width; }
    int keys() const { return shape.key_value_heads * shape.head_width; }

    void make_room(int tokens) {
        x.assign(size_t(tokens) * shape.width, 0.0f);
        qkv.assign(size_t(tokens) * (queries() + 2 * keys() + LANES), 0.0f);
        turn.assign(size_t(tokens) * shape.head_width, 0.0f);
        normed.resize(tokens, shape.width), attended.resize(tokens, queries()), inner.resize(tokens, shape.inner);
    }

    void read_embedding(int token, float* to) const {
        const uint8_t* panel = embedding.panel(token / LANES);
        const int lane = token % LANES;
        for (int c = 0; c < shape.width; c++) {
            if (embedding.kind == FLOAT32) to[c] = ((const float*)panel)[size_t(c) * LANES + lane];
            else if (embedding.kind == BFLOAT16) to[c] = bfloat_to_float(((const uint16_t*)panel)[size_t(c) * LANES + lane]);
            else {
                const uint8_t* block = panel + size_t(c / BLOCK) * embedding.block_bytes();
                const int i = c % BLOCK;
                if (embedding.kind == INT8) {
                    float scale = half_to_float(((const uint16_t*)(block + BLOCK * LANES))[lane]);
                    to[c] = scale * int8_t(block[(i / 4 * LANES + lane) * 4 + i % 4]);
                } else {
                    const uint16_t* halves = (const uint16_t*)(block + BLOCK * LANES / 2);
                    uint8_t pair = block[(i % 16 / 4 * LANES + lane) * 4 + i % 4];
                    to[c] = half_to_float(halves[lane]) * (i < 16 ? pair & 15 : pair >> 4) + half_to_float(halves[LANES + lane]);
                }
            }
        }
    }

    // x / sqrt(mean(x**2) + eps) * weight
    void normalize(const float* from, const std::vector<float>& weight, float* to) const {
        Floats squares = Floats::all(0.0f);
        for (int i = 0; i < shape.width; i += LANES) {
            Floats part = Floats::load(from + i);
            squares = multiply_add(part, part, squares);
        }
        float factor = 1.0f / std::sqrt(sum_of(squares) / float(shape.width) + shape.norm_eps);
        for (int i = 0; i < shape.width; i++) to[i] = from[i] * factor * weight[i];
    }

    bool rounds(const Matrix& matrix) const { return matrix.kind >= INT8; }

    void normalize_all(int count, const std::vector<float>& weight, const Matrix& next) {
        crew.deal(count, 2, [&](int t, int) {
            normalize(&x[size_t(t) * shape.width], weight, normed.row(t));
            if (rounds(next)) normed.round(t, 0, normed.blocks);
        });
    }

    void round_all(Inputs& inputs, int count, const Matrix& next) {
        if (!rounds(next)) return;
        crew.deal(count * inputs.blocks, 64, [&](int i, int) { inputs.round(i / inputs.blocks, i % inputs.blocks, i % inputs.blocks + 1); });
    }

    // to[token, row] = or += matrix @ inputs[token]
    void multiply(const Matrix& matrix, const Inputs& inputs, int count, float* to, size_t stride, bool add) {
        crew.deal(matrix.panels(), 1, [&](int panel, int) {
            const int rows = std::min(LANES, matrix.rows - panel * LANES);
            Floats total[TILE];
            for (int token = 0; token < count; token += TILE) {
                const int tokens = std::min(TILE, count - token);
                multiply_tile(matrix, panel, inputs, token, tokens, total);
                for (int t = 0; t < tokens; t++) {
                    float* row = to + size_t(token + t) * stride + size_t(panel) * LANES;
                    if (rows == LANES) {
                        (add ? Floats::load(row) + total[t] : total[t]).store(row);
                    } else {
                        float few[LANES];
                        total[t].store(few);
                        for (int i = 0; i < rows; i++) row[i] = add ? row[i] + few[i] : few[i];
                    }
                }
            }
        });
    }

    // inner = silu(gate @ x) * (up @ x); panels of gate and up alternate
    void multiply_gated(const Matrix& matrix, int count) {
        crew.deal(matrix.panels() / 2, 1, [&](int pair, int) {
            const int rows = std::min(LANES, shape.inner - pair * LANES);
            Floats gate[TILE], up[TILE];
            for (int token = 0; token < count; token += TILE) {
                const int tokens = std::min(TILE, count - token);
                multiply_tile(matrix, 2 * pair, normed, token, tokens, gate);
                multiply_tile(matrix, 2 * pair + 1, normed, token, tokens, up);
                for (int t = 0; t < tokens; t++) {
                    float g[LANES], u[LANES];
                    gate[t].store(g), up[t].store(u);
                    for (int i = 0; i < LANES; i++) g[i] = g[i] / (1.0f + exponential(-g[i])) * u[i];
                    std::memcpy(inner.row(token + t) + pair * LANES, g, rows * sizeof(float));
                }
            }
        });
    }

    // Turn pairs (i, i + half) of a head by position * frequency i.
    void rotate(float* head, const float* turned) const {
        const int half = shape.head_width / 2;
        for (int i = 0; i < half; i++) {
            float a = head[i], b = head[half + i], c = turned[i], s = turned[half + i];
            head[i] = a * c - b * s, head[half + i] = b * c + a * s;
        }
    }

    template <class Number>
    static Floats load_cached(const Number* p) {
        if constexpr (sizeof(Number) == 2) return Floats::load_half(p);
        else return Floats::load(p);
    }

    template <class Number>
    void store_cached(const float* from, Number* to) const {
        for (int i = 0; i < shape.head_width; i++) {
            if constexpr (sizeof(Number) == 2) to[i] = float_to_half(from[i]);
            else to[i] = from[i];
        }
        for (int i = shape.head_width; i < head_space; i++) to[i] = 0;
    }

    // softmax(query @ keys / sqrt(head width)) @ values for TOKENS tokens of a text and HEADS heads that share keys and
    // values. What the tokens all look at is loaded once for all of them. For each token and head the slots go in order,
    // so that it is computed as it would be alone.
    template <class Number, int HEADS, int TOKENS>
    void attend(const Batch& batch, int layer, int start, int token, int head, std::vector<float>& room) {
        constexpr int ALL = HEADS * TOKENS;
        const int width = shape.head_width, space = head_space, row_width = queries() + 2 * keys();
        const size_t per_slot = size_t(shape.key_value_heads) * space;
        const size_t place = size_t(layer) * batch.group * per_slot + size_t(head / (shape.heads / shape.key_value_heads)) * space;
        const Number *key = (const Number*)batch.keys + place, *value = (const Number*)batch.values + place;
        const int32_t *slots[TOKENS], *looks = batch.looks + start + token;
        int longest = 0;
        for (int t = 0; t < TOKENS; t++) slots[t] = batch.looked_at + batch.first[start + token + t], longest = std::max(longest, looks[t]);
        const int common = TOKENS > 1 ? batch.common[start + token] : looks[0], padded = (longest + LANES - 1) / LANES * LANES;
        if (room.size() < size_t(padded) * ALL) room.resize(size_t(padded) * ALL * 3 / 2);

        const float scale = 1.0f / std::sqrt(float(width));
        float asked[ALL][LARGEST_HEAD], *score[ALL], total[ALL];
        for (int a = 0; a < ALL; a++) {
            const float* query = &qkv[size_t(token + a / HEADS) * row_width + size_t(head + a % HEADS) * width];
            for (int c = 0; c < space; c++) asked[a][c] = c < width ? query[c] * scale : 0.0f;
            score[a] = room.data() + size_t(a) * padded;
        }
        for (int i = 0; i < common; i++) score_key<Number, ALL>(key + slots[0][i] * per_slot, asked, score, i);
        for (int t = 0; t < TOKENS; t++)
            for (int i = common; i < looks[t]; i++) score_key<Number, HEADS>(key + slots[t][i] * per_slot, asked + t * HEADS, score + t * HEADS, i);
        for (int a = 0; a < ALL; a++) total[a] = softmax_terms(score[a], looks[a / HEADS]);

        for (int c = 0; c < space; c += 2 * LANES) {  // two registers of each result at a time
            const int parts = std::min(2, (space - c) / LANES);
            Floats sum[ALL][2];
            for (int a = 0; a < ALL; a++) sum[a][0] = sum[a][1] = Floats::all(0.0f);
            for (int i = 0; i < common; i++) add_value<Number, ALL>(value + slots[0][i] * per_slot + c, parts, score, i, sum);
            for (int t = 0; t < TOKENS; t++)
                for (int i = common; i < looks[t]; i++) add_value<Number, HEADS>(value + slots[t][i] * per_slot + c, parts, score + t * HEADS, i, sum + t * HEADS);
            for (int a = 0; a < ALL; a++)
                for (int p = 0; p < parts; p++) {
                    float few[LANES], *to = attended.row(token + a / HEADS) + (head + a % HEADS) * width + c + p * LANES;
                    (sum[a][p] * Floats::all(1.0f / total[a])).store(few);
                    for (int i = 0; i < std::min(LANES, width - c - p * LANES); i++) to[i] = few[i];
                }
        }
    }

    // score[a][i] = asked[a] @ a key
    template <class Number, int COUNT>
    void score_key(const Number* key, const float (*asked)[LARGEST_HEAD], float** score, int i) const {
        Floats sum[COUNT];
        for (int a = 0; a < COUNT; a++) sum[a] = Floats::all(0.0f);
        for (int c = 0; c < head_space; c += LANES) {
            const Floats part = load_cached(key + c);
            for (int a = 0; a < COUNT; a++) sum[a] = multiply_add(part, Floats::load(asked[a] + c), sum[a]);
        }
        for (int a = 0; a < COUNT; a++) score[a][i] = sum_of(sum[a]);
    }

    // sum[a] += score[a][i] * a value
    template <class Number, int COUNT>
    void add_value(const Number* value, int parts, float* const* score, int i, Floats (*sum)[2]) const {
        const Floats first = load_cached(value), second = parts == 2 ? load_cached(value + LANES) : first;
        for (int a = 0; a < COUNT; a++) {
            const Floats share = Floats::all(score[a][i]);
            sum[a][0] = multiply_add(share, first, sum[a][0]);
            sum[a][1] = multiply_add(share, second, sum[a][1]);
        }
    }

    // Replace scores by e**(score - largest), fill up to 16 with zeros, give the sum.
    static float softmax_terms(float* __restrict score, int count) {
        float largest = score[0];
        for (int i = 1; i < count; i++) largest = std::max(largest, score[i]);
        for (int i = 0; i < count; i++) score[i] = exponential(score[i] - largest);
        Floats sum = Floats::all(0.0f);
        for (int i = count; i % LANES; i++) score[i] = 0.0f;
        for (int i = 0; i < count; i += LANES) sum = sum + Floats::load(score + i);
        return sum_of(sum);
    }

    // All heads of all tokens: those that share keys and values together, and four tokens of a text together.
    template <class Number, int HEADS>
    void attend_all(const Batch& batch, int layer, int start, int count) {
        const int groups = shape.heads / HEADS, fours = (count + 3) / 4;
        crew.deal(fours * groups, 1, [&](int i, int member) {
            const int token = i / groups * 4, head = i % groups * HEADS, last = std::min(token + 4, count) - 1;
            if (last - token == 3 && batch.text[start + token] == batch.text[start + last])
                return attend<Number, HEADS, 4>(batch, layer, start, token, head, weights[member]);
            for (int t = token; t <= last; t++) attend<Number, HEADS, 1>(batch, layer, start, t, head, weights[member]);
        });
    }

    template <class Number>
    void run_layer(const Batch& batch, int number, int start, int count) {
        const Layer& layer = layers[number];
        const int width = queries() + 2 * keys(), heads = shape.heads, kv = shape.key_value_heads, head = shape.head_width;

        normalize_all(count, layer.attention_norm, layer.query_key_value);
        multiply(layer.query_key_value, normed, count, qkv.data(), width, false);
        crew.deal(count * (heads + kv), 32, [&](int i, int) {
            const int t = i / (heads + kv), h = i % (heads + kv);
            float* row = &qkv[size_t(t) * width + size_t(h) * head];
            rotate(row, &turn[size_t(t) * head]);
            if (h < heads) return;
            const size_t at = ((size_t(number) * batch.group + batch.slot[start + t]) * kv + (h - heads)) * head_space;
            store_cached(row, (Number*)batch.keys + at);
            store_cached(row + keys(), (Number*)batch.values + at);
        });
        switch (heads / kv % 4 == 0 ? 4 : heads / kv % 3 == 0 ? 3 : heads / kv % 2 == 0 ? 2 : 1) {
            case 4: attend_all<Number, 4>(batch, number, start, count); break;
            case 3: attend_all<Number, 3>(batch, number, start, count); break;
            case 2: attend_all<Number, 2>(batch, number, start, count); break;
            default: attend_all<Number, 1>(batch, number, start, count);
        }
        round_all(attended, count, layer.join);
        multiply(layer.join, attended, count, x.data(), shape.width, true);

        normalize_all(count, layer.feed_norm, layer.gate_up);
        multiply_gated(layer.gate_up, count);
        round_all(inner, count, layer.down);
        multiply(layer.down, inner, count, x.data(), shape.width, true);
    }

    // Logits of rows that the last norm has put out.
    void head(int count, const float* hidden, float* out, int64_t stride) {
        crew.begin();
        for (int start = 0; start < count; start += CHUNK) {
            const int rows = std::min(CHUNK, count - start);
            chosen.resize(rows, shape.width);
            crew.deal(rows, 2, [&](int i, int) {
                std::memcpy(chosen.row(i), hidden + size_t(start + i) * shape.width, shape.width * sizeof(float));
                if (rounds(embedding)) chosen.round(i, 0, chosen.blocks);
            });
            multiply(embedding, chosen, rows, out + start * stride, stride, false);
        }
        crew.end();
    }

    void forward(const Batch& batch) {
        make_room(std::min(CHUNK, batch.count));
        chosen.resize(std::min(CHUNK, std::max(1, batch.wanted)), shape.width);
        crew.begin();
        int done = 0;  // rows of the output that are written
        for (int start = 0; start < batch.count; start += CHUNK) {
            const int count = std::min(CHUNK, batch.count - start);
            crew.deal(count, 2, [&](int t, int) {
                read_embedding(batch.tokens[start + t], &x[size_t(t) * shape.width]);
                for (int i = 0; i < shape.head_width / 2; i++) {
                    const double angle = float(batch.positions[start + t]) * inverse_frequency[i];
                    turn[size_t(t) * shape.head_width + i] = float(std::cos(angle));
                    turn[size_t(t) * shape.head_width + shape.head_width / 2 + i] = float(std::sin(angle));
                }
            });
            for (int layer = 0; layer < batch.layers; layer++) {
                if (batch.half) run_layer<uint16_t>(batch, layer, start, count);
                else run_layer<float>(batch, layer, start, count);
            }
            int wanted = 0;
            while (done + wanted < batch.wanted && batch.rows[done + wanted] < start + count) wanted++;
            if (!wanted) continue;
            crew.deal(wanted, 2, [&](int i, int) {
                normalize(&x[size_t(batch.rows[done + i] - start) * shape.width], last_norm, chosen.row(i));
                if (batch.hidden) std::memcpy(batch.out + (done + i) * batch.stride, chosen.row(i), shape.width * sizeof(float));
                else if (rounds(embedding)) chosen.round(i, 0, chosen.blocks);
            });
            if (!batch.hidden) multiply(embedding, chosen, wanted, batch.out + done * batch.stride, batch.stride, false);
            done += wanted;
        }
        crew.end();
    }
};

void round_block(const float* x, int count, uint8_t* code, uint16_t* scale) {
    float largest = 0.0f;
    for (int i = 0; i < count; i++) largest = std::max(largest, std::fabs(x[i]));
    *scale = float_to_half(largest / 127.0f);
    const float step = half_to_float(*scale);
    for (int i = 0; i < BLOCK; i++) {
        float at = i < count && step > 0.0f ? std::nearbyint(x[i] / step) : 0.0f;
        code[i] = uint8_t(int8_t(std::min(127.0f, std::max(-127.0f, at))));
    }
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- API

extern "C" {

const char* kernels() { return KERNELS; }

int64_t packed_bytes(int32_t kind, int32_t rows, int32_t columns) {
    Matrix matrix{kind, rows, columns, nullptr};
    return int64_t(matrix.panels()) * matrix.blocks() * matrix.block_bytes();
}

// Write a matrix's panels. `from` holds float32 rows, or, where `blocks` is set, GGUF's blocks: Q8_0 (a float16 scale, 32
// codes) for INT8, Q4_1 (scale, offset, 16 bytes of two codes each) for INT4. Row i of the panels is row order[i], zeros where
// that is -1.
void pack(int32_t kind, int32_t blocks, const void* from, int32_t rows, int32_t columns, const int32_t* order, uint8_t* to) {
    Matrix matrix{kind, rows, columns, to};
    for (int64_t row = 0; row < int64_t(matrix.panels()) * LANES; row++) {
        uint8_t* panel = to + (matrix.panel(int(row / LANES)) - matrix.data);
        const int lane = int(row % LANES);
        for (int b = 0; b < matrix.blocks(); b++) {
            uint8_t* block = panel + size_t(b) * matrix.block_bytes();
            const int64_t source = row < rows ? order[row] : -1;
            const int there = source >= 0 ? std::min(BLOCK, columns - b * BLOCK) : 0;
            if (kind == FLOAT32 || kind == BFLOAT16) {
                for (int i = 0; i < BLOCK; i++) {
                    float value = i < there ? ((const float*)from)[source * columns + b * BLOCK + i] : 0.0f;
                    if (kind == FLOAT32) ((float*)block)[i * LANES + lane] = value;
                    else ((uint16_t*)block)[i * LANES + lane] = float_to_bfloat(value);
                }
            } else if (kind == INT8) {
                uint8_t codes[BLOCK] = {};
                uint16_t scale = 0;
                if (there && blocks) {
                    const uint8_t* held = (const uint8_t*)from + (source * matrix.blocks() + b) * (2 + BLOCK);
                    std::memcpy(&scale, held, 2), std::memcpy(codes, held + 2, BLOCK);
                } else if (there) {
                    round_block((const float*)from + source * columns + b * BLOCK, there, codes, &scale);
                }
                for (int i = 0; i < BLOCK; i++) block[(i / 4 * LANES + lane) * 4 + i % 4] = codes[i];
                std::memcpy(block + BLOCK * LANES + 2 * lane, &scale, 2);
            } else {
                uint8_t held[20] = {};
                if (there) std::memcpy(held, (const uint8_t*)from + (source * matrix.blocks() + b) * 20, 20);
                for (int i = 0; i < 16; i++) block[(i / 4 * LANES + lane) * 4 + i % 4] = held[4 + i];
                std::memcpy(block + BLOCK * LANES / 2 + 2 * lane, held, 2);
                std::memcpy(block + BLOCK * LANES / 2 + 2 * LANES + 2 * lane, held + 2, 2);
            }
        }
    }
}

void* engine_new(const Shape* shape, int32_t threads) { return new Engine(*shape, threads); }

void engine_free(void* engine) { delete (Engine*)engine; }

// which: 0 word table, 1 query, key and value, 2 join, 3 gate and up, 4 down
void engine_matrix(void* engine, int32_t which, int32_t layer, int32_t kind, int32_t rows, int32_t columns, const uint8_t* data) {
    Engine* e = (Engine*)engine;
    Matrix matrix{kind, rows, columns, data};
    if (which == 0) {
        e->embedding = matrix;
        return;
    }
    Layer& l = e->layers[layer];
    Matrix* places[] = {&l.query_key_value, &l.join, &l.gate_up, &l.down};
    *places[which - 1] = matrix;
}

// which: 0 the last norm, 1 before attention, 2 before the feed-forward part
void engine_norm(void* engine, int32_t which, int32_t layer, const float* weight) {
    Engine* e = (Engine*)engine;
    std::vector<float>& to = which == 0 ? e->last_norm : which == 1 ? e->layers[layer].attention_norm : e->layers[layer].feed_norm;
    to.assign(weight, weight + e->shape.width);
}

void engine_head(void* engine, int32_t count, const float* hidden, float* out, int64_t stride) {
    ((Engine*)engine)->head(count, hidden, out, stride);
}

void engine_forward(void* engine, const Batch* batch) { ((Engine*)engine)->forward(*batch); }

}  // extern "C"
