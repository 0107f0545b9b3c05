// Frames in memory: 4 bytes of header (type, length), then a flatbuffer.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Types of frames.
enum { ERROR, PREPARE, REQUEST_CALL, EXTRA, RESPONSE_CALL };

// Offsets of fields in their vtables.
enum {
  PREPARED_TOKEN = 4,
  REQUEST_ID = 4,
  REQUEST_TOKEN = 16,
  RESPONSE_TOKEN = 10,
  ANSWER_ID = 4,
  ANSWER_ACTION = 6,
  ASKED_TYPE = 4,
  ASKED = 6,
  VARIABLE_NAME = 4
};

typedef struct {
  unsigned char* p;
  size_t n;
} blob;

static void die(const char* m) {
  perror(m);
  exit(2);
}

// Read a whole file.
static blob read_file(const char* f) {
  int fd = open(f, O_RDONLY);
  struct stat s;
  if (fd < 0 || fstat(fd, &s))
    die(f);
  blob b = {malloc(s.st_size + 1), s.st_size};
  if (!b.p || read(fd, b.p, b.n) != (ssize_t)b.n)
    die(f);
  close(fd);
  return b;
}

static uint32_t le32(const unsigned char* p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}

static uint16_t le16(const unsigned char* p) {
  uint16_t v;
  memcpy(&v, p, 2);
  return v;
}

// Length of a frame, its header included, from its header.
static size_t frame_length(const unsigned char* p) {
  return 4 + ((p[1] << 16) | (p[2] << 8) | p[3]);
}

// Position of a field of the table at `t`, by its offset in the vtable; 0 if it is missing. At least 4 bytes follow,
// or `least` bytes.
static size_t field_of(const unsigned char* b, size_t n, size_t t, unsigned vt, size_t least) {
  if (t + 4 > n)
    return 0;
  int64_t v = (int64_t)t - (int32_t)le32(b + t);
  if (v < 0 || (size_t)v + 4 > n)
    return 0;
  unsigned length = le16(b + v);
  if (vt + 2 > length || (size_t)v + vt + 2 > n)
    return 0;
  unsigned o = le16(b + v + vt);
  return o && t + o + least <= n ? t + o : 0;
}

// The same for the root table.
static size_t field(const unsigned char* b, size_t n, unsigned vt, size_t least) {
  return n < 8 ? 0 : field_of(b, n, le32(b), vt, least);
}

// Name of the variable that an ExtraInfo request asks for, "#req" or "#resp" for a body. Returns its length; 0: none.
static size_t asked_name(const unsigned char* b, size_t n, const char** name) {
  size_t type = field(b, n, ASKED_TYPE, 1), at = field(b, n, ASKED, 4);
  switch (type ? b[type] : 0) {
    case 2:
      *name = "#req";
      return 4;
    case 3:
      *name = "#resp";
      return 5;
    case 1:
      break;
    default:
      return 0;
  }
  if (!at || !(at = field_of(b, n, at + le32(b + at), VARIABLE_NAME, 4)))
    return 0;
  at += le32(b + at);
  if (at + 4 > n || le32(b + at) > n - at - 4)
    return 0;
  *name = (const char*)b + at + 4;
  return le32(b + at);
}
