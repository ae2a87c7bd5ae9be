/* Inner loops over texts: cutting them into remembered pieces, numbering words, sketching runs,
 * counting.
 *
 * The same results as pieces.py, sketches.py, documents.py and quality.py without a compiler, several times faster. Texts are
 * UTF-8 or code points as Python makes them, and are not checked again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- pieces ---------------------------------------------------------------------------------- */

enum { BLANK, NEWLINE, LETTER, OTHER };
enum { BY_LETTERS, BY_LINES, BY_BLANKS }; /* the ways to cut, as in pieces.py */

typedef struct {
    int32_t *slots; /* number of a piece, or -1; a power of two of them, at most half full */
    int64_t num_slots;
    uint64_t *hashes; /* by number, like the following */
    int64_t *starts;  /* of the piece in text; starts[count] is its end */
    int64_t count, room;
    uint8_t *text;
    int64_t text_room;
} Pieces;

void pieces_free(Pieces *pieces)
{
    if (!pieces)
        return;
    free(pieces->slots);
    free(pieces->hashes);
    free(pieces->starts);
    free(pieces->text);
    free(pieces);
}

Pieces *pieces_new(void)
{
    Pieces *pieces = calloc(1, sizeof *pieces);
    if (!pieces)
        return NULL;
    pieces->num_slots = 1 << 16;
    pieces->room = 1 << 14;
    pieces->text_room = 1 << 18;
    pieces->slots = malloc(pieces->num_slots * sizeof *pieces->slots);
    pieces->hashes = malloc(pieces->room * sizeof *pieces->hashes);
    pieces->starts = calloc(pieces->room + 1, sizeof *pieces->starts);
    pieces->text = malloc(pieces->text_room);
    if (!pieces->slots || !pieces->hashes || !pieces->starts || !pieces->text) {
        pieces_free(pieces);
        return NULL;
    }
    memset(pieces->slots, 0xff, pieces->num_slots * sizeof *pieces->slots);
    return pieces;
}

int64_t pieces_count(const Pieces *pieces) { return pieces->count; }

const uint8_t *pieces_text(const Pieces *pieces, int64_t number, int64_t *length)
{
    *length = pieces->starts[number + 1] - pieces->starts[number];
    return pieces->text + pieces->starts[number];
}

static uint64_t hash_of(const uint8_t *text, int64_t length)
{
    uint64_t hash = (uint64_t)length * 0x9E3779B97F4A7C15u;
    while (length > 0) {
        uint64_t word = 0;
        memcpy(&word, text, length < 8 ? (size_t)length : 8);
        hash = (hash ^ word) * 0xBF58476D1CE4E5B9u;
        hash ^= hash >> 29;
        text += 8;
        length -= 8;
    }
    return hash * 0x94D049BB133111EBu ^ hash >> 32;
}

static int grow_slots(Pieces *pieces)
{
    int64_t size = pieces->num_slots * 2;
    int32_t *slots = malloc(size * sizeof *slots);
    if (!slots)
        return 0;
    memset(slots, 0xff, size * sizeof *slots);
    for (int64_t number = 0; number < pieces->count; number++) {
        int64_t slot = pieces->hashes[number] & (size - 1);
        while (slots[slot] >= 0)
            slot = (slot + 1) & (size - 1);
        slots[slot] = (int32_t)number;
    }
    free(pieces->slots);
    pieces->slots = slots;
    pieces->num_slots = size;
    return 1;
}

/* Make room for one more piece. */
static int grow(Pieces *pieces, int64_t length)
{
    if (pieces->count == pieces->room) {
        int64_t room = pieces->room * 2;
        uint64_t *hashes = realloc(pieces->hashes, room * sizeof *hashes);
        if (!hashes)
            return 0;
        pieces->hashes = hashes;
        int64_t *starts = realloc(pieces->starts, (room + 1) * sizeof *starts);
        if (!starts)
            return 0;
        pieces->starts = starts;
        pieces->room = room;
    }
    int64_t needed = pieces->starts[pieces->count] + length;
    if (needed > pieces->text_room) {
        int64_t room = needed * 2;
        uint8_t *text = realloc(pieces->text, room);
        if (!text)
            return 0;
        pieces->text = text;
        pieces->text_room = room;
    }
    return pieces->count * 2 < pieces->num_slots || grow_slots(pieces);
}

/* Number of a piece, given out as pieces are met; -1: no memory. */
static int32_t number_of(Pieces *pieces, const uint8_t *piece, int64_t length)
{
    uint64_t hash = hash_of(piece, length);
    int64_t slot = hash & (pieces->num_slots - 1);
    for (; pieces->slots[slot] >= 0; slot = (slot + 1) & (pieces->num_slots - 1)) {
        int32_t number = pieces->slots[slot];
        int64_t start = pieces->starts[number];
        if (pieces->hashes[number] == hash && pieces->starts[number + 1] - start == length &&
            memcmp(pieces->text + start, piece, length) == 0)
            return number;
    }
    if (!grow(pieces, length))
        return -1;
    slot = hash & (pieces->num_slots - 1);
    while (pieces->slots[slot] >= 0)
        slot = (slot + 1) & (pieces->num_slots - 1);
    int64_t number = pieces->count++;
    memcpy(pieces->text + pieces->starts[number], piece, length);
    pieces->starts[number + 1] = pieces->starts[number] + length;
    pieces->hashes[number] = hash;
    pieces->slots[slot] = (int32_t)number;
    return (int32_t)number;
}

/* Kind of the character at ``text`` and its length in bytes. */
static int kind_of(const uint8_t *text, int *length)
{
    uint8_t byte = text[0];
    if (byte < 0x80) {
        *length = 1;
        if (byte == ' ')
            return BLANK;
        if (byte == '\n')
            return NEWLINE;
        return (byte | 32) >= 'a' && (byte | 32) <= 'z' ? LETTER : OTHER;
    }
    *length = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    if (byte == 0xC3) /* U+00C0 to U+00FF without the signs of multiplication and division */
        return text[1] == 0x97 || text[1] == 0xB7 ? OTHER : LETTER;
    if (byte >= 0xC4 && byte <= 0xC8)
        return LETTER;
    if (byte == 0xC9)
        return text[1] <= 0x8F ? LETTER : OTHER;
    if (byte == 0xE1)
        return text[1] >= 0xB8 && text[1] <= 0xBB ? LETTER : OTHER;
    return OTHER;
}

static int coarser(int kind, int way)
{
    if (way == BY_LETTERS || kind == BLANK)
        return kind;
    return way == BY_LINES && kind == NEWLINE ? NEWLINE : OTHER;
}

/* Cut a text, write the number of each piece and return how many they are; -1: no memory.
 * ``numbers`` has room for one per byte. */
int64_t pieces_cut(Pieces *pieces, const uint8_t *text, int64_t length, int way, int32_t *numbers)
{
    int64_t count = 0, at = 0;
    while (at < length) {
        int64_t start = at;
        int bytes;
        while (at < length && text[at] == ' ')
            at++;
        if (at < length) {
            int kind = coarser(kind_of(text + at, &bytes), way);
            if (kind != NEWLINE || at == start)
                at += bytes;
            if (kind != NEWLINE)
                while (at < length && coarser(kind_of(text + at, &bytes), way) == kind)
                    at += bytes;
        }
        int32_t number = number_of(pieces, text + start, at - start);
        if (number < 0)
            return -1;
        numbers[count++] = number;
    }
    return count;
}

/* --- sketches -------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t number)
{
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9u;
    number = (number ^ number >> 27) * 0x94D049BB133111EBu;
    return number ^ number >> 31;
}

/* Number the words of a text, as sketches._words: kinds are 0 between words, 1 letter, 2 a word by
 * itself. ``words`` has room for one per character; returns how many they are. */
int64_t sketch_words(
    const uint32_t *codes, int64_t count, const uint8_t *kinds, uint64_t base, uint64_t *words)
{
    int64_t found = 0;
    uint64_t word = 0, power = 0; /* of the base; 0: in no word */
    for (int64_t at = 0; at < count; at++) {
        uint8_t kind = kinds[codes[at] < 0xFFFF ? codes[at] : 0xFFFF];
        if (kind == 1) {
            if (!power) {
                word = 0;
                power = 1;
            }
            word += codes[at] * power;
            power *= base;
            continue;
        }
        if (power) {
            words[found++] = mixed(word);
            power = 0;
        }
        if (kind == 2)
            words[found++] = mixed(codes[at]);
    }
    if (power)
        words[found++] = mixed(word);
    return found;
}

/* The least number of each bin, as sketches._least_of_bins; a bin without one has -1. */
void sketch_least(
    const uint64_t *words, int64_t count, int width, uint64_t base, int64_t *least, int bins)
{
    for (int bin = 0; bin < bins; bin++)
        least[bin] = -1;
    for (int64_t at = 0; at + width <= count; at++) {
        uint64_t run = 0, power = 1;
        for (int place = 0; place < width; place++, power *= base)
            run += words[at + place] * power;
        run = mixed(run);
        int bin = (int)((run >> 32) * (uint64_t)bins >> 32);
        int64_t rest = (int64_t)(run & 0xFFFFFFFFu);
        if (least[bin] < 0 || rest < least[bin])
            least[bin] = rest;
    }
}

/* --- counts ---------------------------------------------------------------------------------- */

/* Code of the character at ``text``, of which the first byte is not ASCII; those past 65,535: that. */
static uint32_t wide_code(const uint8_t *text, int *bytes)
{
    *bytes = text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3 : 4;
    if (*bytes == 2)
        return (text[0] & 0x1Fu) << 6 | (text[1] & 0x3Fu);
    if (*bytes == 3)
        return (text[0] & 0x0Fu) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3Fu);
    return 0x10000;
}

static int is_wide_blank(uint32_t code)
{
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static int is_ideograph(uint32_t code)
{
    return (code >= 0x3040 && code <= 0x30FF) || (code >= 0x3400 && code <= 0x4DBF) ||
           (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0xF900 && code <= 0xFAFF);
}

/* Words between white space, ideographs counting as white space; and how many of these there are. */
int64_t count_words(const uint8_t *text, int64_t length, int64_t *ideographs)
{
    int64_t words = 0;
    int bytes, is_in_word = 0;
    *ideographs = 0;
    for (int64_t at = 0; at < length; at += bytes) {
        uint32_t code = text[at];
        int is_blank;
        bytes = 1;
        if (code < 0x80)
            is_blank = code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x1F);
        else {
            code = wide_code(text + at, &bytes);
            *ideographs += is_ideograph(code);
            is_blank = is_wide_blank(code) || is_ideograph(code);
        }
        words += !is_blank && !is_in_word;
        is_in_word = !is_blank;
    }
    return words;
}

/* Letters of a text, by kinds as marks.py has them; -1 if it has characters past 65,535. */
int64_t count_letters(const uint8_t *text, int64_t length, const uint8_t *kinds)
{
    int64_t letters = 0;
    int bytes;
    for (int64_t at = 0; at < length; at += bytes) {
        uint32_t code = text[at];
        bytes = 1;
        if (code >= 0x80)
            code = wide_code(text + at, &bytes);
        if (code > 0xFFFF)
            return -1;
        letters += kinds[code] >> 2 & 1;
    }
    return letters;
}
