/* Text of the bodies of a JATS article, and what else there is of it: the same as jats_text.py.
 *
 * Reads bytes that a real parser has found well-formed, so it repairs nothing and reports nothing.
 * What it does not know (entities of the file's own, another encoding, depths past 128) it leaves to
 * that parser and to Python: ``article_read`` answers NULL. It never reads past the end, whatever
 * the bytes are. The walk is that of jats_text.py, function by function, over a tree in arrays;
 * which names mean what comes from there.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OPEN = 0, CLOSE = 1, GONE = 2, RAISED = 3, NEXT_ITEM = 4, END = 5, BODY_END = 7 };
enum { DIGIT = 2 }; /* of the kinds of characters */

/* What names mean, as jats_compiled.py numbers them. */
enum {
    PLAIN, DROPPED, BLOCK, ITEM, SECTION, CROSS_REFERENCE, INLINE_FORMULA, BREAK, SUPERSCRIPT,
    DEFINITION,
    LINEAR = 16, LINEAR_TEXT, LINEAR_SPACE, LINEAR_RAISED, MATH, /* of MathML */
    NOTE = 32, CITATION, /* values of ref-type */
};
enum { NO_ROLE, ARTICLE, PART, BODY, HEAVY, TITLE, SCANNED };
enum { HERE, MATHML, ELSEWHERE, VALUES }; /* namespaces, and names that are values of ref-type */

#define MOST_DEPTH 128
#define MOST_SPACES 64
#define NUM_SLOTS 512

typedef const uint8_t *Place;
typedef struct { Place at, stop; } Slice;

typedef struct {
    Slice name;
    uint8_t space, kind, role;
} Name;

typedef struct {
    Name slots[NUM_SLOTS];
} Names;

typedef struct {
    uint8_t kind, space;
    int16_t name;    /* slot of its name, or -1 */
    int32_t previous, first, next, end; /* nodes; -1: none. All below it are before ``end``. */
    int32_t detail;  /* of a cross-reference, its kind; of a section, its number */
    int32_t text, text_end, tail, tail_end; /* in the texts */
    Slice value;     /* of sec-type */
} Node;

typedef struct { Slice prefix, address; int depth; } Space;

typedef struct {
    Slice name;
    int space, role;
    int32_t node, last_child; /* -1 outside of bodies */
} Open;

typedef struct {
    const Names *names;
    Node *nodes;
    int32_t num_nodes, room;
    uint8_t *texts, *skeleton, *out, *sections;
    int64_t texts_length, skeleton_length, out_length;
    int32_t num_sections, num_elements;
    int is_scanned, is_unusual;
    const uint8_t *kinds, *dropped; /* of characters; of sections */
    /* while reading */
    Place copied;
    Open open[MOST_DEPTH];
    int depth, elided, in_body; /* depths where a left out element and a body began, or 0 */
    Space spaces[MOST_SPACES];
    int num_spaces;
    Slice home; /* the namespace of the root */
    int32_t run;
    int run_is_tail;
} Article;

static int64_t size_of(Slice slice) { return slice.stop - slice.at; }

static int is_same(Slice one, Slice other)
{
    int64_t size = size_of(one);
    return size == size_of(other) && (!size || memcmp(one.at, other.at, size) == 0);
}

static int is_text(Slice slice, const char *text)
{
    return size_of(slice) == (int64_t)strlen(text) && memcmp(slice.at, text, strlen(text)) == 0;
}

/* --- names ------------------------------------------------------------------------------------- */

static int slot_of(const Names *names, Slice name, int space)
{
    uint32_t hash = (uint32_t)space + 2166136261u;
    for (Place at = name.at; at < name.stop; at++)
        hash = (hash ^ *at) * 16777619u;
    int slot = (int)((hash ^ hash >> 15) % NUM_SLOTS);
    while (names->slots[slot].name.at &&
           (names->slots[slot].space != space || !is_same(names->slots[slot].name, name)))
        slot = (slot + 1) % NUM_SLOTS;
    return slot;
}

void names_free(Names *names) { free(names); }

/* Names, each with a zero behind it, which must stay where they are; fewer than half of the slots. */
Names *names_new(const char *text, const uint8_t *spaces, const uint8_t *kinds,
                 const uint8_t *roles, int count)
{
    Names *names = count * 2 < NUM_SLOTS ? calloc(1, sizeof *names) : NULL;
    for (int i = 0; names && i < count; i++) {
        Slice name = {(Place)text, (Place)text + strlen(text)};
        names->slots[slot_of(names, name, spaces[i])] = (Name){name, spaces[i], kinds[i], roles[i]};
        text += strlen(text) + 1;
    }
    return names;
}

static const Name *named(const Names *names, Slice name, int space)
{
    return &names->slots[slot_of(names, name, space)];
}

/* --- reading: places in the file --------------------------------------------------------------- */

static Place find(Place at, Place end, const char *mark)
{
    int64_t length = (int64_t)strlen(mark);
    for (; end - at >= length; at++) {
        at = memchr(at, mark[0], end - at - length + 1);
        if (!at)
            return NULL;
        if (memcmp(at, mark, length) == 0)
            return at;
    }
    return NULL;
}

static int begins(Place at, Place end, const char *mark)
{
    int64_t length = (int64_t)strlen(mark);
    return end - at >= length && memcmp(at, mark, length) == 0;
}

static int is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* Number of the character that ``&...;`` stands for; 0: one of the file's own. Moves past it. */
static uint32_t character(Place *at, Place end)
{
    static const struct { const char *name; uint8_t byte; } named_ones[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (int i = 0; i < 5; i++)
        if (begins(*at, end, named_ones[i].name)) {
            *at += strlen(named_ones[i].name);
            return named_ones[i].byte;
        }
    if (!begins(*at, end, "&#"))
        return 0;
    Place next = *at + 2;
    uint32_t code = 0, base = 10;
    if (next < end && *next == 'x')
        base = 16, next++;
    for (; next < end && *next != ';'; next++) {
        uint32_t digit = *next <= '9' ? *next - (uint32_t)'0' : (*next | 0x20u) - 'a' + 10;
        if (digit >= base || code > 0x10FFFF)
            return 0;
        code = code * base + digit;
    }
    if (next >= end || code > 0x10FFFF || (code < 0x20 && code != 9 && code != 10 && code != 13))
        return 0;
    *at = next + 1;
    return code;
}

static uint8_t *encode(uint32_t code, uint8_t *out)
{
    if (code < 0x80) {
        *out++ = (uint8_t)code;
        return out;
    }
    if (code < 0x800)
        *out++ = (uint8_t)(0xC0 | code >> 6);
    else {
        if (code < 0x10000)
            *out++ = (uint8_t)(0xE0 | code >> 12);
        else {
            *out++ = (uint8_t)(0xF0 | code >> 18);
            *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
        }
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    }
    *out++ = (uint8_t)(0x80 | (code & 0x3F));
    return out;
}

/* Text of the file; kept where it is in a body. */
static void read_text(Article *article, Place at, Place stop, int has_entities)
{
    uint8_t *out = article->texts + article->texts_length;
    while (at < stop) {
        Place next = has_entities ? memchr(at, '&', stop - at) : NULL;
        next = next ? next : stop;
        if (article->in_body) {
            if (memchr(at, '\r', next - at)) {
                for (; at < next; at++)
                    if (*at != '\r')
                        *out++ = *at;
                    else if (at + 1 >= stop || at[1] != '\n')
                        *out++ = '\n';
            } else {
                memcpy(out, at, next - at);
                out += next - at;
            }
        }
        at = next;
        if (at < stop) {
            uint32_t code = character(&at, stop);
            if (!code) {
                article->is_unusual = 1;
                return;
            }
            if (article->in_body)
                out = encode(code, out);
        }
    }
    article->texts_length = out - article->texts;
}

/* --- reading: elements ------------------------------------------------------------------------- */

static int space_of(const Article *article, Slice prefix)
{
    for (int i = article->num_spaces - 1; i >= 0; i--) {
        const Space *space = &article->spaces[i];
        if (!is_same(space->prefix, prefix))
            continue;
        if (is_same(space->address, article->home) || !size_of(space->address))
            return HERE;
        return is_text(space->address, "http://www.w3.org/1998/Math/MathML") ? MATHML : ELSEWHERE;
    }
    return size_of(prefix) ? ELSEWHERE : HERE;
}

/* One attribute; returns the place behind it, or NULL at the end of the tag or where it is odd. */
static Place attribute(Place at, Place end, Slice *name, Slice *value)
{
    while (at < end && is_space(*at))
        at++;
    name->at = at;
    while (at < end && *at != '=' && !is_space(*at) && *at != '>' && *at != '/')
        at++;
    name->stop = at;
    while (at < end && (is_space(*at) || *at == '='))
        at++;
    if (at >= end || name->at == name->stop || (*at != '"' && *at != '\''))
        return NULL;
    value->at = at + 1;
    value->stop = memchr(at + 1, *at, end - at - 1);
    return value->stop ? value->stop + 1 : NULL;
}

static void add_space(Article *article, Slice name, Slice address)
{
    if (article->num_spaces == MOST_SPACES) {
        article->is_unusual = 1;
        return;
    }
    Slice prefix = {name.at + 5, name.stop}; /* behind "xmlns" */
    if (size_of(prefix))
        prefix.at++;
    article->spaces[article->num_spaces++] = (Space){prefix, address, article->depth + 1};
}

/* Values that are read must be as they are written. */
static void check_value(Article *article, Slice value)
{
    for (Place at = value.at; at < value.stop; at++)
        if (*at < 0x20)
            article->is_unusual = 1;
}

static int32_t new_node(Article *article)
{
    if (article->num_nodes == article->room) {
        int32_t room = article->room * 2 + 1024;
        Node *nodes = realloc(article->nodes, room * sizeof *nodes);
        if (!nodes) {
            article->is_unusual = 1;
            return -1;
        }
        article->nodes = nodes;
        article->room = room;
    }
    Node *node = &article->nodes[article->num_nodes];
    memset(node, 0, sizeof *node);
    node->previous = node->first = node->next = -1;
    return article->num_nodes++;
}

/* The text up to here belongs to what came before. */
static void end_run(Article *article)
{
    if (article->run < 0)
        return;
    Node *node = &article->nodes[article->run];
    *(article->run_is_tail ? &node->tail_end : &node->text_end) = (int32_t)article->texts_length;
}

static void hang_in(Article *article, int32_t number, Open *parent)
{
    Node *node = &article->nodes[number];
    node->text = (int32_t)article->texts_length;
    article->run = number;
    article->run_is_tail = 0;
    if (!parent)
        return;
    node->previous = parent->last_child;
    if (parent->last_child >= 0)
        article->nodes[parent->last_child].next = number;
    else
        article->nodes[parent->node].first = number;
    parent->last_child = number;
}

static void end_element(Article *article, Place at)
{
    if (!article->depth) {
        article->is_unusual = 1;
        return;
    }
    Open *open = &article->open[article->depth - 1];
    if (open->node >= 0) {
        Node *node = &article->nodes[open->node];
        end_run(article);
        node->end = article->num_nodes;
        node->tail = node->tail_end = (int32_t)article->texts_length;
        article->run = article->in_body == article->depth ? -1 : open->node;
        article->run_is_tail = 1;
    }
    if (article->in_body == article->depth)
        article->in_body = 0;
    if (article->elided == article->depth) {
        article->elided = 0;
        article->copied = at;
    }
    while (article->num_spaces && article->spaces[article->num_spaces - 1].depth == article->depth)
        article->num_spaces--;
    article->depth--;
}

static void begin_element(Article *article, Slice name, Slice ref_type, Slice sec_type, int is_ocr)
{
    Slice local = name, prefix = {name.at, name.at};
    Place colon = memchr(name.at, ':', size_of(name));
    if (colon) {
        prefix.stop = colon;
        local.at = colon + 1;
    }
    if (!article->depth) /* the root: what is in its namespace is read as if there were none */
        for (int i = 0; i < article->num_spaces; i++)
            if (is_same(article->spaces[i].prefix, prefix))
                article->home = article->spaces[i].address;
    int space = space_of(article, prefix);
    const Name *known = named(article->names, local, space);
    int role = known->name.at ? known->role : NO_ROLE;
    Open *parent = article->depth ? &article->open[article->depth - 1] : NULL;
    if ((!parent) != (role == ARTICLE) || (role == PART && article->elided) ||
        (!parent && is_text(article->home, "http://www.w3.org/1998/Math/MathML")))
        article->is_unusual = 1;
    article->is_scanned |= role == SCANNED && is_ocr;
    int is_whole = parent && (parent->role == ARTICLE || parent->role == PART);
    Open *open = &article->open[article->depth++];
    article->num_elements++;
    *open = (Open){name, space, role, -1, -1};
    int is_body = is_whole && role == BODY && !article->elided;
    if (is_whole && (role == BODY || role == HEAVY) && !article->elided)
        article->elided = -article->depth; /* from the end of its tag on */
    if (!is_body && !article->in_body)
        return;
    end_run(article);
    int32_t number = new_node(article);
    if (number < 0)
        return;
    hang_in(article, number, is_body ? NULL : parent);
    open->node = number;
    Node *node = &article->nodes[number];
    node->kind = known->name.at ? known->kind : PLAIN;
    node->space = (uint8_t)space;
    node->name = known->name.at ? (int16_t)(known - article->names->slots) : -1;
    node->detail = -1;
    if (node->kind == CROSS_REFERENCE && ref_type.at) {
        const Name *kind = named(article->names, ref_type, VALUES);
        node->detail = kind->name.at ? kind->kind : PLAIN;
    } else if (node->kind == CROSS_REFERENCE)
        node->detail = CITATION;
    if (node->kind == SECTION) {
        node->detail = article->num_sections++;
        node->value = sec_type;
    }
    if (is_body)
        article->in_body = article->depth;
}

/* A tag that begins an element; returns the place behind it, or NULL if it is odd. */
static Place read_tag(Article *article, Place at, Place end)
{
    Slice name = {at + 1, at + 1}, ref_type = {0}, sec_type = {0}, key, value;
    Place next;
    int is_ocr = 0;
    while (name.stop < end && !is_space(*name.stop) && *name.stop != '>' && *name.stop != '/')
        name.stop++;
    for (at = name.stop; (next = attribute(at, end, &key, &value)); at = next) {
        for (Place place = value.at; (place = memchr(place, '&', value.stop - place));)
            if (!character(&place, value.stop))
                return NULL;
        if (size_of(key) >= 5 && memcmp(key.at, "xmlns", 5) == 0)
            add_space(article, key, value);
        Slice *read = is_text(key, "ref-type") ? &ref_type : is_text(key, "sec-type") ? &sec_type : NULL;
        if (read) {
            *read = value;
            check_value(article, value);
            if (memchr(value.at, '&', size_of(value)))
                return NULL;
        }
        is_ocr |= is_text(key, "preformat-type") && is_text(value, "pmc-ocr-text");
        if (is_text(key, "xml:id"))
            return NULL; /* of which the parser has opinions */
    }
    while (at < end && is_space(*at))
        at++;
    int is_empty = at < end && *at == '/';
    at += is_empty;
    if (at >= end || *at != '>' || name.at == name.stop || article->depth == MOST_DEPTH)
        return NULL;
    at++;
    begin_element(article, name, ref_type, sec_type, is_ocr);
    if (article->elided < 0) {
        article->elided = is_empty ? 0 : -article->elided;
        if (!is_empty) {
            memcpy(article->skeleton + article->skeleton_length, article->copied, at - article->copied);
            article->skeleton_length += at - article->copied;
            article->copied = at;
        }
    }
    if (is_empty)
        end_element(article, at);
    return at;
}

/* A comment, CDATA, instruction or declaration; returns the place behind it, or NULL if it is odd. */
static Place read_other(Article *article, Place at, Place end)
{
    Place stop;
    if (begins(at, end, "<!--"))
        return (stop = find(at + 4, end, "-->")) ? stop + 3 : NULL;
    if (begins(at, end, "<?"))
        return (stop = find(at + 2, end, "?>")) ? stop + 2 : NULL;
    if (begins(at, end, "<![CDATA[") && article->depth) {
        stop = find(at + 9, end, "]]>");
        if (stop)
            read_text(article, at + 9, stop, 0);
        return stop ? stop + 3 : NULL;
    }
    if (article->depth)
        return NULL;
    for (stop = at; stop < end && *stop != '>'; stop++) {
        if (*stop == '[')
            return NULL; /* declarations of its own */
        if (*stop == '"' || *stop == '\'')
            stop = memchr(stop + 1, *stop, end - stop - 1);
        if (!stop)
            return NULL;
    }
    return stop < end ? stop + 1 : NULL;
}

static int read_all(Article *article, Place at, Place end)
{
    while (at < end && !article->is_unusual) {
        Place stop;
        if (*at != '<') {
            stop = memchr(at, '<', end - at);
            stop = stop ? stop : end;
            read_text(article, at, stop, 1);
        } else if (begins(at, end, "</")) {
            stop = memchr(at, '>', end - at);
            end_element(article, at);
            stop = stop ? stop + 1 : NULL;
        } else if (at + 1 < end && (at[1] == '!' || at[1] == '?'))
            stop = read_other(article, at, end);
        else
            stop = read_tag(article, at, end);
        if (!stop)
            return 0;
        at = stop;
    }
    return !article->is_unusual && !article->depth && article->num_elements;
}

void article_free(Article *article)
{
    if (!article)
        return;
    free(article->nodes);
    free(article->texts);
    free(article->skeleton);
    free(article->sections);
    free(article->out);
    free(article);
}

/* Read a file of fewer than 2^31 bytes, which must stay where it is; NULL if it is not for us. */
Article *article_read(Place data, int64_t length, const Names *names)
{
    Article *article = calloc(1, sizeof *article);
    if (!article)
        return NULL;
    article->names = names;
    article->copied = data;
    article->run = -1;
    article->texts = malloc(length + 4);
    article->skeleton = malloc(length + 1);
    if (!article->texts || !article->skeleton || !read_all(article, data, data + length)) {
        article_free(article);
        return NULL;
    }
    int64_t rest = data + length - article->copied;
    memcpy(article->skeleton + article->skeleton_length, article->copied, rest);
    article->skeleton_length += rest;
    return article;
}

/* The file without what is in its bodies, back matter and floating figures. */
const uint8_t *article_skeleton(const Article *article, int64_t *length)
{
    *length = article->skeleton_length;
    return article->skeleton;
}

int article_is_scanned(const Article *article) { return article->is_scanned; }

static void append(uint8_t **out, Place at, int64_t length)
{
    if (length)
        memcpy(*out, at, length);
    *out += length;
}

/* Of each section its kind, a CLOSE, its heading, a GONE. NULL: no memory. */
const uint8_t *article_sections(Article *article, int64_t *length)
{
    int64_t room = article->texts_length + 1;
    for (int32_t i = 0; i < article->num_nodes; i++)
        room += article->nodes[i].kind == SECTION ? size_of(article->nodes[i].value) + 2 : 0;
    uint8_t *out = article->sections = malloc(room);
    for (int32_t i = 0; out && i < article->num_nodes; i++) {
        const Node *node = &article->nodes[i];
        if (node->kind != SECTION)
            continue;
        append(&out, node->value.at, size_of(node->value));
        *out++ = CLOSE;
        int32_t child = node->first;
        while (child >= 0 && (article->nodes[child].name < 0 ||
                              article->names->slots[article->nodes[child].name].role != TITLE))
            child = article->nodes[child].next;
        if (child >= 0) {
            const Node *title = &article->nodes[child];
            append(&out, article->texts + title->text, title->text_end - title->text);
        }
        *out++ = GONE;
    }
    *length = out ? out - article->sections : 0;
    return article->sections;
}

/* --- walking ----------------------------------------------------------------------------------- */

static void put(Article *article, uint8_t byte) { article->out[article->out_length++] = byte; }

static void put_text(Article *article, int32_t first, int32_t end)
{
    memcpy(article->out + article->out_length, article->texts + first, end - first);
    article->out_length += end - first;
}

static void walk_children(Article *article, int32_t number);

/* Text below a node, in one line, from ``start`` of what is put out. */
static int64_t walk_inline(Article *article, int32_t number)
{
    int64_t start = article->out_length, length = start;
    walk_children(article, number);
    for (int64_t i = start; i < article->out_length; i++)
        if (article->out[i] != NEXT_ITEM)
            article->out[length++] = article->out[i] == END ? ' ' : article->out[i];
    article->out_length = length;
    return start;
}

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

static int is_blank(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
           code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static Slice stripped(Slice text)
{
    int bytes;
    while (text.at < text.stop && is_blank(code_at(text.at, &bytes)))
        text.at += bytes;
    while (text.at < text.stop) {
        Place last = text.stop - 1;
        while (last > text.at && (*last & 0xC0) == 0x80)
            last--;
        if (!is_blank(code_at(last, &bytes)))
            break;
        text.stop = last;
    }
    return text;
}

/* ``_NUMBER.fullmatch`` of a text that is stripped. */
static int is_number(Article *article, Slice text)
{
    int bytes, digits = 0;
    if (text.at < text.stop && (*text.at == '+' || *text.at == '-'))
        text.at++;
    else if (begins(text.at, text.stop, "\xE2\x88\x92") || begins(text.at, text.stop, "\xE2\x80\x93"))
        text.at += 3;
    while (text.at < text.stop && is_blank(code_at(text.at, &bytes)))
        text.at += bytes;
    for (; text.at < text.stop; text.at += bytes, digits++) {
        uint32_t code = code_at(text.at, &bytes);
        article->is_unusual |= code == 0x10000; /* there are digits among these */
        if (code == 0x10000 || !(article->kinds[code] & DIGIT))
            return 0;
    }
    return digits > 0;
}

static Slice since(Article *article, int64_t start)
{
    return (Slice){article->out + start, article->out + article->out_length};
}

/* Put ``text``, which is part of what was put out since ``start``, in its place, behind a mark. */
static void keep_only(Article *article, int64_t start, int mark, Slice text)
{
    int64_t length = size_of(text);
    memmove(article->out + start + 1, text.at, length);
    article->out[start] = (uint8_t)mark;
    article->out_length = start + 1 + length;
}

static void add_superscript(Article *article, int32_t number)
{
    int64_t start = walk_inline(article, number);
    Slice text = stripped(since(article, start));
    if (is_number(article, text))
        keep_only(article, start, RAISED, text);
}

static void add_cross_reference(Article *article, int32_t number)
{
    int detail = article->nodes[number].detail;
    if (detail == NOTE) {
        put(article, GONE);
        return;
    }
    int64_t start = walk_inline(article, number);
    if (detail != CITATION)
        return;
    Slice text = since(article, start);
    while (text.at < text.stop && *text.at <= CLOSE)
        text.at++;
    while (text.at < text.stop && text.stop[-1] <= CLOSE)
        text.stop--;
    keep_only(article, start, OPEN, text);
    put(article, CLOSE);
}

static void put_linear(Article *article, int32_t number)
{
    const Node *node = &article->nodes[number];
    if (node->kind == LINEAR_SPACE) {
        put(article, ' ');
        return;
    }
    Slice own = {article->texts + node->text, article->texts + node->text_end};
    if (node->kind != LINEAR_TEXT)
        own = stripped(own);
    if (node->kind == LINEAR_RAISED && node->first < 0)
        put(article, RAISED);
    memcpy(article->out + article->out_length, own.at, size_of(own));
    article->out_length += size_of(own);
    for (int32_t child = node->first; child >= 0; child = article->nodes[child].next) {
        if (node->kind == LINEAR_RAISED && article->nodes[child].next < 0)
            put(article, RAISED);
        put_linear(article, child);
    }
}

static void add_inline_formula(Article *article, int32_t number)
{
    int64_t start = article->out_length;
    int32_t end = article->nodes[number].end, math = number + 1;
    while (math < end && article->nodes[math].kind != MATH)
        math++;
    if (math < end) {
        int32_t node = math;
        while (node < article->nodes[math].end && article->nodes[node].kind >= LINEAR &&
               article->nodes[node].kind <= MATH)
            node++;
        if (node == article->nodes[math].end)
            put_linear(article, math);
    } else {
        walk_inline(article, number);
        int64_t length = start;
        for (int64_t i = start; i < article->out_length; i++)
            if (article->out[i] > RAISED)
                article->out[length++] = article->out[i];
        article->out_length = length;
    }
    if (article->out_length == start)
        put(article, GONE);
}

static int follows_its_like(const Article *article, int32_t number)
{
    int32_t before = article->nodes[number].previous;
    return before >= 0 && article->nodes[before].name == article->nodes[number].name;
}

static void begin_item(Article *article, int32_t number)
{
    put(article, END);
    if (follows_its_like(article, number))
        put(article, NEXT_ITEM);
}

static void add_definition(Article *article, int32_t number)
{
    begin_item(article, number);
    for (int32_t child = article->nodes[number].first; child >= 0;
         child = article->nodes[child].next) {
        if (child != article->nodes[number].first) {
            put(article, ':');
            put(article, ' ');
        }
        walk_inline(article, child);
    }
    put(article, END);
}

static void walk(Article *article, int32_t number)
{
    const Node *node = &article->nodes[number];
    if (node->space != HERE)
        return;
    switch (node->kind) {
    case DROPPED:
        return;
    case BREAK:
        put(article, ' ');
        return;
    case SUPERSCRIPT:
        add_superscript(article, number);
        return;
    case CROSS_REFERENCE:
        add_cross_reference(article, number);
        return;
    case INLINE_FORMULA:
        add_inline_formula(article, number);
        return;
    case DEFINITION:
        add_definition(article, number);
        return;
    case SECTION:
        if (article->dropped[node->detail])
            return;
    /* fall through */
    case BLOCK:
        put(article, END);
        walk_children(article, number);
        put(article, END);
        return;
    case ITEM:
        begin_item(article, number);
        walk_children(article, number);
        put(article, END);
        return;
    default:
        walk_children(article, number);
    }
}

static void walk_children(Article *article, int32_t number)
{
    const Node *node = &article->nodes[number];
    put_text(article, node->text, node->text_end);
    for (int32_t child = node->first; child >= 0; child = article->nodes[child].next) {
        walk(article, child);
        put_text(article, article->nodes[child].tail, article->nodes[child].tail_end);
    }
}

/* Paragraphs of all bodies with marks in them, each with END behind it; a BODY_END behind each body.
 * ``dropped`` says of each section whether it is left out. NULL: no memory, or not for us. */
const uint8_t *article_paragraphs(
    Article *article, const uint8_t *dropped, const uint8_t *kinds, int64_t *length)
{
    /* Every text once, and for an element no more than six bytes: END NEXT_ITEM ... ": " END. */
    article->out = malloc(article->texts_length + 8 * (int64_t)article->num_nodes + 16);
    if (!article->out)
        return NULL;
    article->dropped = dropped;
    article->kinds = kinds;
    for (int32_t body = 0; body < article->num_nodes; body = article->nodes[body].end) {
        walk(article, body);
        put(article, END);
        put(article, BODY_END);
    }
    *length = article->out_length;
    return article->is_unusual ? NULL : article->out;
}
