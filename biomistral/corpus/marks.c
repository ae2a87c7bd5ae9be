/* Citation marks out of paragraphs: the same results as marks.py, some twenty times faster.
 *
 * Texts are UTF-8 and are not checked again. A paragraph with characters that Unicode may have to
 * normalize is left to Python. Each pass is one expression of marks.py, and named after it: no
 * expression needs to go back, because what stands between the marks cannot hold one itself.
 */
#include <stdint.h>
#include <string.h>

enum { OPEN = 0, CLOSE = 1, GONE = 2, RAISED = 3, NEXT_ITEM = 4, END = 5, RAW = 6 };
enum { WORD = 1, DIGIT = 2, LETTER = 4, UPPER = 8 }; /* kinds of characters, as marks.py has them */
enum { WITH_DIGITS = 1, WITH_GONE = 2, WITHOUT_CASE = 4 };

#define DANGLING_CHARACTERS 60

typedef const uint8_t *Place;

static const uint8_t *kinds; /* of the first 65,536 characters; always the same table */

static uint32_t code_at(Place at, int *bytes)
{
    uint8_t first = at[0];
    *bytes = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (*bytes == 1)
        return first;
    if (*bytes == 2)
        return (first & 0x1Fu) << 6 | (at[1] & 0x3Fu);
    if (*bytes == 3)
        return (first & 0x0Fu) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
    return 0x10000;
}

static int kind_at(Place at, int *bytes)
{
    uint32_t code = code_at(at, bytes);
    return code < 0x10000 ? kinds[code] : 0;
}

/* Whether a character is as it is in every normal form of a text, whatever stands beside it. */
int marks_is_plain(uint32_t code)
{
    if (code < 0x300)
        return code != 0xAD && code != 0x130 && code != 0x131 && code != 0x17F;
    if (code < 0x2010)
        return (code >= 0x391 && code <= 0x3CE) || (code >= 0x400 && code <= 0x481) ||
               (code >= 0x48A && code <= 0x52F) || (code >= 0x2002 && code <= 0x200A);
    if (code < 0x2300)
        return (code <= 0x20CF && code != 0x2060) || code >= 0x2190 ||
               (code >= 0x2100 && code <= 0x2122);
    return (code >= 0x2500 && code <= 0x27FF) || (code >= 0x3000 && code <= 0x3002) ||
           (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0xFF01 && code <= 0xFF5E);
}

static int is_blank(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
           code == 0xA0 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* ``one_line``; -1 for a text that is not plain. Sets the flags of the marks that it has. */
static int64_t one_line(Place at, Place end, uint8_t *out, int *marks)
{
    uint8_t *first = out;
    int bytes, is_due = 0;
    *marks = 0;
    while (at < end) {
        uint32_t code = *at;
        if (code > ' ' && code < 0x80) {
            if (is_due && out > first)
                *out++ = ' ';
            is_due = 0;
            *out++ = *at++;
            continue;
        }
        code = code_at(at, &bytes);
        if (is_blank(code)) {
            is_due = 1;
            at += bytes;
            continue;
        }
        if (code <= RAISED)
            *marks |= 1 << code;
        else if (!marks_is_plain(code))
            return -1;
        if (is_due && out > first)
            *out++ = ' ';
        is_due = 0;
        memcpy(out, at, bytes);
        out += bytes;
        at += bytes;
    }
    return out - first;
}

/* --- what may stand between citations ---------------------------------------------------------- */

static int is_dash(Place at, Place end)
{
    return end - at >= 3 && at[0] == 0xE2 && at[1] == 0x80 &&
           (at[2] == 0x93 || at[2] == 0x94 || at[2] == 0x90);
}

/* Bytes of a separator: [\s,;–—‐-], blanks being ' '; 0: none. */
static int separator(Place at, Place end)
{
    if (at < end && (*at == ' ' || *at == ',' || *at == ';' || *at == '-'))
        return 1;
    return is_dash(at, end) ? 3 : 0;
}

static const char *const LEADS[] = {
    "and", "or", "see", "also", "reviewed", "review", "reviews", "discussed", "summarised",
    "summarized", "described", "in", "by", "for", "a", "an", "example", "examples", "ref", "refs",
    "reference", "references", "therein", "recently",
};
static const char *const DOTTED[] = {"e.g.", "i.e.", "cf."};

static int is_same(Place at, const char *word, int64_t length, int how)
{
    for (int64_t i = 0; i < length; i++) {
        uint8_t byte = at[i];
        if (how & WITHOUT_CASE && byte >= 'A' && byte <= 'Z')
            byte |= 0x20;
        if (byte != (uint8_t)word[i])
            return 0;
    }
    return 1;
}

/* Bytes of a word that leads up to a citation; 0: none. */
static int64_t lead(Place at, Place end, int how)
{
    if (*at == '&')
        return 1;
    for (size_t i = 0; i < sizeof DOTTED / sizeof *DOTTED; i++) {
        int64_t length = (int64_t)strlen(DOTTED[i]);
        if (end - at >= length && is_same(at, DOTTED[i], length, how))
            return length;
    }
    int bytes;
    Place stop = at;
    while (stop < end && kind_at(stop, &bytes) & WORD)
        stop += bytes;
    for (size_t i = 0; i < sizeof LEADS / sizeof *LEADS; i++)
        if (strlen(LEADS[i]) == (size_t)(stop - at) && is_same(at, LEADS[i], stop - at, how))
            return stop - at;
    return 0;
}

/* As far as separators and lead-in words go. */
static Place between(Place at, Place end, int how)
{
    int bytes;
    while (at < end) {
        int64_t step = separator(at, end);
        if (!step && how & WITH_DIGITS && kind_at(at, &bytes) & DIGIT)
            step = bytes;
        if (!step && how & WITH_GONE && *at == GONE)
            step = 1;
        if (!step)
            step = lead(at, end, how);
        if (!step)
            break;
        at += step;
    }
    return at;
}

static Place separators(Place at, Place end, int how)
{
    int step;
    while (at < end && ((step = separator(at, end)) || (how & WITH_GONE && *at == GONE)))
        at += step ? step : 1;
    return at;
}

/* End of a citation that begins at ``at``, or NULL. */
static Place citation(Place at, Place end)
{
    if (at >= end || *at != OPEN)
        return NULL;
    for (at++; at < end; at++)
        if (*at == OPEN || *at == CLOSE)
            return *at == CLOSE ? at + 1 : NULL;
    return NULL;
}

static int is_opening(uint8_t byte) { return byte == '(' || byte == '['; }
static int is_closing(uint8_t byte) { return byte == ')' || byte == ']'; }

/* --- expressions: each returns the end of its match at ``at``, or NULL ------------------------- */

static Place bracketed(Place at, Place end)
{
    if (!is_opening(*at))
        return NULL;
    int found = 0;
    for (at++;; found = 1) {
        at = between(at, end, WITH_DIGITS);
        Place next = citation(at, end);
        if (!next)
            return found && at < end && is_closing(*at) ? at + 1 : NULL;
        at = next;
    }
}

static Place run(Place at, Place end)
{
    Place stop = citation(at, end), next;
    if (stop)
        while ((next = citation(separators(stop, end, 0), end)))
            stop = next;
    return stop;
}

static Place separated(Place at, Place end)
{
    if (*at != GONE)
        return NULL;
    Place stop = NULL;
    for (;;) {
        at = separators(at + 1, end, 0);
        if (at >= end || *at != GONE)
            return stop;
        stop = at + 1;
    }
}

static Place emptied(Place at, Place end)
{
    if (!is_opening(*at))
        return NULL;
    at = between(at + 1, end, WITHOUT_CASE);
    if (at >= end || *at != GONE)
        return NULL;
    at = between(at, end, WITHOUT_CASE | WITH_GONE);
    return at < end && is_closing(*at) ? at + 1 : NULL;
}

/* --- passes: each writes a text to ``out`` and returns its end ---------------------------------- */

static uint8_t *replace(Place at, Place end, uint8_t *out, Place (*match)(Place, Place))
{
    while (at < end) {
        Place stop = *at <= GONE || is_opening(*at) ? match(at, end) : NULL;
        *out++ = stop ? GONE : *at;
        at = stop ? stop : at + 1;
    }
    return out;
}

/* ``_RUN`` by ``_kept_citation``: names stay, numbers go. */
static uint8_t *keep_names(Place at, Place end, uint8_t *out)
{
    while (at < end) {
        Place stop = *at == OPEN ? run(at, end) : NULL;
        if (!stop) {
            *out++ = *at++;
            continue;
        }
        int bytes, letters = 0;
        uint8_t *first = out;
        for (; at < stop; at += bytes) {
            int kind = kind_at(at, &bytes);
            if (*at <= CLOSE)
                continue;
            letters = letters >= 2 ? 2 : kind & LETTER ? letters + 1 : 0;
            memcpy(out, at, bytes);
            out += bytes;
        }
        if (letters < 2) {
            out = first;
            *out++ = GONE;
        }
    }
    return out;
}

/* ``_AFTER_OPEN`` and ``_BEFORE_CLOSE``, one after the other. */
static uint8_t *clear_after_open(Place at, Place end, uint8_t *out)
{
    while (at < end) {
        uint8_t byte = *out++ = *at++;
        Place stop = at;
        if (!is_opening(byte))
            continue;
        while (stop < end && *stop == ' ')
            stop++;
        if (stop >= end || *stop != GONE)
            continue;
        while (stop < end && (*stop == ' ' || *stop == ',' || *stop == ';' || *stop == GONE))
            stop++;
        at = stop;
    }
    return out;
}

static uint8_t *clear_before_close(Place at, Place end, uint8_t *out)
{
    while (at < end) {
        if (*at == GONE) {
            Place stop = at + 1;
            while (stop < end && *stop == ' ')
                stop++;
            if (stop < end && is_closing(*stop)) {
                at = stop;
                continue;
            }
        }
        *out++ = *at++;
    }
    return out;
}

static int ends_with(Place first, Place end, const char *tail)
{
    int64_t length = (int64_t)strlen(tail);
    return end - first >= length && memcmp(end - length, tail, length) == 0;
}

/* ``_DANGLING`` in the last characters from ``first`` to ``end``; returns the new end. */
static uint8_t *without_dangling_word(Place first, uint8_t *end)
{
    static const char *const tails[] = {" elsewhere in", " by", " in", " from"};
    Place start = end;
    int bytes;
    for (int count = 0; count < DANGLING_CHARACTERS && start > first; count++)
        while (--start > first && (*start & 0xC0) == 0x80)
            ;
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        if (!ends_with(start, end, tails[i]))
            continue;
        uint8_t *stop = end - strlen(tails[i]);
        Place word = stop;
        while (word > start) {
            Place before = word - 1;
            while (before > start && (*before & 0xC0) == 0x80)
                before--;
            if (!(kind_at(before, &bytes) & WORD))
                break;
            word = before;
        }
        int is_form = ends_with(word, stop, "ed") || ends_with(word, stop, "en") ||
                      ends_with(word, stop, "wn");
        if (is_form && stop - word > 2)
            return stop;
    }
    return end;
}

static uint8_t *closed_up(Place at, Place end, uint8_t *out)
{
    uint8_t *last = out; /* where the piece before this one begins */
    int bytes;
    while (at < end && *at != GONE)
        *out++ = *at++;
    while (at < end) {
        at++; /* the mark */
        Place stop = memchr(at, GONE, end - at);
        stop = stop ? stop : end;
        uint8_t head = at < stop ? *at : '.';
        if (head && strchr(" .,;:)]", head))
            while (out > last && (out[-1] == ' ' || out[-1] == ','))
                out--;
        if (head && strchr(".,;)]", head))
            out = without_dangling_word(last, out);
        uint8_t before = out > last ? out[-1] : ' ';
        last = out;
        if (at < stop && *at == '.') {
            if (before == '.')
                at++;
            else if (at + 1 < stop && kind_at(at + 1, &bytes) & UPPER) {
                *out++ = '.';
                *out++ = ' ';
                at++;
            }
        }
        memcpy(out, at, stop - at);
        out += stop - at;
        at = stop;
    }
    return out;
}

static uint8_t *raise(Place at, Place end, uint8_t *out)
{
    int bytes;
    while (at < end) {
        int kind = kind_at(at, &bytes);
        if (*at == RAISED) {
            at++;
            continue;
        }
        memcpy(out, at, bytes);
        out += bytes;
        at += bytes;
        if (!(kind & DIGIT))
            continue;
        Place next = at;
        while (next < end && *next == ' ')
            next++;
        if (next >= end || *next != RAISED)
            continue;
        Place sign = ++next;
        if (sign < end && (*sign == '+' || *sign == '-'))
            sign++;
        else if (end - sign >= 3 && *sign == 0xE2 &&
                 (memcmp(sign, "\xE2\x88\x92", 3) == 0 || memcmp(sign, "\xE2\x80\x93", 3) == 0))
            sign += 3;
        if (sign < end && kind_at(sign, &bytes) & DIGIT) {
            *out++ = '^';
            at = next;
        }
    }
    return out;
}

static int is_pause(uint8_t byte) { return byte == ' ' || byte == ',' || byte == ';'; }

/* ``_INSIDE``: blanks that stand where none belongs. */
static uint8_t *tidy(Place at, Place end, uint8_t *out)
{
    Place first = at;
    while (at < end) {
        uint8_t before = at > first ? at[-1] : 0;
        Place blanks = at, stop = at;
        while (blanks < end && *blanks == ' ')
            blanks++;
        if (!is_pause(before)) /* looked at once for each run of them */
            while (stop < end && is_pause(*stop))
                stop++;
        if (blanks > at && is_opening(before))
            at = blanks;
        else if (stop > at && stop < end && is_closing(*stop))
            at = stop;
        else if (blanks > at && blanks < end && (*blanks == ',' || *blanks == '.') &&
                 (blanks + 1 == end || blanks[1] == ' '))
            at = blanks;
        else
            *out++ = *at++;
    }
    return out;
}

static uint8_t *single_blanks(uint8_t *first, uint8_t *end)
{
    uint8_t *out = first;
    for (uint8_t *at = first; at < end; at++)
        if (*at != ' ' || (out > first && out[-1] != ' '))
            *out++ = *at;
    return out > first && out[-1] == ' ' ? out - 1 : out;
}

/* --- all of it ---------------------------------------------------------------------------------- */

static uint8_t *without_citations(uint8_t *out, uint8_t *end, uint8_t *other)
{
    uint8_t *stop = replace(out, end, other, bracketed);
    end = keep_names(other, stop, out);
    stop = replace(out, end, other, separated);
    end = replace(other, stop, out, emptied);
    stop = replace(out, end, other, separated);
    end = clear_after_open(other, stop, out);
    stop = clear_before_close(out, end, other);
    end = closed_up(other, stop, out);
    stop = out;
    for (uint8_t *at = out; at < end; at++)
        if (*at > CLOSE)
            *stop++ = *at;
    return stop;
}

/* ``clean`` of one paragraph; returns its end in ``out``, or NULL if it is not plain. */
static uint8_t *cleaned(Place at, Place stop, uint8_t *out, uint8_t *other)
{
    int marks;
    int64_t length = one_line(at, stop, out, &marks);
    if (length < 0)
        return NULL;
    uint8_t *end = out + length;
    if (marks & (1 << OPEN | 1 << GONE))
        end = without_citations(out, end, other);
    if (marks & 1 << RAISED) {
        stop = raise(out, end, other);
        memcpy(out, other, stop - other);
        end = out + (stop - other);
    }
    if (marks & (1 << OPEN | 1 << GONE | 1 << RAISED))
        end = single_blanks(out, end);
    stop = tidy(out, end, other);
    if (stop - other == end - out) /* nothing was taken out */
        return end;
    memcpy(out, other, stop - other);
    return single_blanks(out, out + (stop - other));
}

/* Clean paragraphs, each with END behind it; a NEXT_ITEM anywhere in one is put at its start. What
 * is not plain comes out as it went in, behind a RAW. ``out`` and ``other`` have room for two bytes
 * more than twice ``length``. Returns the length of what was written. */
int64_t marks_clean(Place text, int64_t length, const uint8_t *table, uint8_t *out, uint8_t *other)
{
    uint8_t *first = out;
    uint8_t *copy = other + length + 1;
    kinds = table;
    for (Place at = text, end = text + length; at < end;) {
        Place stop = memchr(at, END, end - at);
        stop = stop ? stop : end;
        Place own = at, own_end = stop;
        if (memchr(at, NEXT_ITEM, stop - at)) {
            *out++ = NEXT_ITEM;
            own_end = own = copy;
            for (uint8_t *to = copy; at < stop; at++)
                if (*at != NEXT_ITEM)
                    *to++ = *at, own_end = to;
        }
        uint8_t *done = cleaned(own, own_end, out, other);
        if (!done) {
            *out++ = RAW;
            memcpy(out, own, own_end - own);
            done = out + (own_end - own);
        }
        out = done;
        *out++ = END;
        at = stop + 1;
    }
    return out - first;
}
