/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trace.h"
#include "dualparal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (64 * 1024)
#define EVENT 512               /* the longest event, most are a third of that */
#define FLUSH_US G_USEC_PER_SEC
#define BATCH 64                /* events that are sent together */

static const char ending[] = "\n]\n";

struct _DpTrace
{
  /* -- immutable -- */
  char *path;
  gint64 opened_us;
  gsize limit;
  DpTraceClock clock;           /* or NULL: all stages are in this process */
  DpTraceSend send;             /* NULL: there is a file */
  gpointer user_data;

  /* -- protected by lock -- */
  GMutex lock;
  int fd;                       /* -1: it has ended */
  gsize written;                /* into the file or the buffer */
  gsize size;                   /* of what is in the buffer, which is whole events */
  gint64 flushed_us;
  int failure;                  /* errno of what could not be written; 0: none */
  gboolean told;                /* that it failed, by dp_trace_check() */
  guint64 transfers;
  DpTraceEvent batch[BATCH];    /* of one that is sent */
  guint batched;
  char buffer[BUFFER];
};

static void
finish (DpTrace *t)
{
  close (t->fd);
  t->fd = -1;
}

static void
flush (DpTrace *t)
{
  for (gsize done = 0; done < t->size && t->fd >= 0;) {
    ssize_t n = write (t->fd, t->buffer + done, t->size - done);

    if (n >= 0)
      done += n;
    else if (errno != EINTR) {
      t->failure = errno;
      finish (t);
    }
  }
  t->size = 0;
}

static void
append (DpTrace *t, const char *text, gsize size)
{
  memcpy (t->buffer + t->size, text, size);
  t->size += size;
  t->written += size;
}

static void
end (DpTrace *t)
{
  if (t->fd >= 0) {
    append (t, ending, sizeof ending - 1);
    flush (t);
  }
  if (t->fd >= 0)
    finish (t);
}

/* Whole or not at all, with room left for the end. */
static void
add_event (DpTrace *t, const char *event, gsize size)
{
  gint64 now = g_get_monotonic_time ();

  if (t->fd < 0)
    return;
  if (t->written + size + sizeof ending > t->limit) {
    end (t);
    return;
  }
  append (t, event, size);
  if (BUFFER - t->size < 2 * EVENT || now - t->flushed_us >= FLUSH_US) {
    flush (t);
    t->flushed_us = now;
  }
}

static void
write_event (DpTrace *t, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
write_event (DpTrace *t, const char *format, ...)
{
  char event[EVENT];
  va_list args;
  int size;

  va_start (args, format);
  size = g_vsnprintf (event, sizeof event, format, args);
  va_end (args);
  g_assert (size < EVENT);
  g_mutex_lock (&t->lock);
  add_event (t, event, size);
  g_mutex_unlock (&t->lock);
}

static void
name_track (DpTrace *t, int track, const char *name)
{
  write_event (t, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"%s\"}}", track, name);
  write_event (t, ",\n{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"sort_index\":%d}}", track, track);
}

/* A pipe is refused: it may keep us waiting, and its reader may end the process by going away. */
static int
open_file (const char *path, const char **reason)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
  struct stat st;

  if (fd < 0 || fstat (fd, &st) != 0)
    *reason = g_strerror (errno);
  else if (!S_ISREG (st.st_mode) && !S_ISCHR (st.st_mode))
    *reason = "it is no file";
  else if (flock (fd, LOCK_EX | LOCK_NB) != 0)
    *reason = errno == EWOULDBLOCK ? "another trace is being written to it; give each a file of its own" : g_strerror (errno);
  else if (S_ISREG (st.st_mode) && ftruncate (fd, 0) != 0)
    *reason = g_strerror (errno);
  if (*reason && fd >= 0)
    close (fd);
  return *reason ? -1 : fd;
}

DpTrace *
dp_trace_new (const char *path, int stages, gsize limit, GError **error)
{
  const char *reason = NULL;
  int fd = open_file (path, &reason);
  DpTrace *t;

  if (fd < 0) {
    dp_error_set (error, DP_ERROR_SETTINGS, "trace: %s cannot be written: %s", path, reason);
    return NULL;
  }
  t = g_new0 (DpTrace, 1);
  t->path = g_strdup (path);
  t->fd = fd;
  t->limit = limit;
  t->opened_us = t->flushed_us = g_get_monotonic_time ();
  g_mutex_init (&t->lock);
  write_event (t, "[\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"dualparal\"}}");
  name_track (t, DP_TRACE_FRAMES, "frames");
  name_track (t, DP_TRACE_TEXT, "text encoder");
  name_track (t, DP_TRACE_DECODER, "decoder");
  for (int i = 0; i < stages; i++) {
    char name[32];

    g_snprintf (name, sizeof name, "stage %d", i);
    name_track (t, DP_TRACE_STAGE + i, name);
  }
  return t;
}

DpTrace *
dp_trace_new_remote (DpTraceSend send, gpointer user_data)
{
  DpTrace *t = g_new0 (DpTrace, 1);

  t->fd = -1;
  t->send = send;
  t->user_data = user_data;
  g_mutex_init (&t->lock);
  return t;
}

/* Under lock. */
static void
pass_on (DpTrace *t)
{
  if (t->batched > 0)
    t->send (t->batch, t->batched, t->user_data);
  t->batched = 0;
}

void
dp_trace_pass_on (DpTrace *t)
{
  if (t == NULL)
    return;
  g_mutex_lock (&t->lock);
  pass_on (t);
  g_mutex_unlock (&t->lock);
}

void
dp_trace_set_clock (DpTrace *t, DpTraceClock clock)
{
  if (t)
    t->clock = clock;
}

static gboolean
failed (const DpTrace *t, GError **error)
{
  dp_error_set (error, DP_ERROR_FAILED, "trace: %s ends too early: %s", t->path, g_strerror (t->failure));
  return FALSE;
}

gboolean
dp_trace_check (DpTrace *t, GError **error)
{
  if (t == NULL)
    return TRUE;
  g_mutex_lock (&t->lock);
  gboolean ok = t->failure == 0 || t->told;
  t->told = t->failure != 0;
  g_mutex_unlock (&t->lock);
  return ok || failed (t, error);
}

gboolean
dp_trace_end (DpTrace *t, GError **error)
{
  if (t == NULL)
    return TRUE;
  g_mutex_lock (&t->lock);
  end (t);
  gboolean ok = t->failure == 0 || t->told;
  g_mutex_unlock (&t->lock);
  return ok || failed (t, error);
}

void
dp_trace_free (DpTrace *t)
{
  if (t == NULL)
    return;
  end (t);
  g_mutex_clear (&t->lock);
  g_free (t->path);
  g_free (t);
}

void
dp_trace_span (DpTrace *t, int track, const char *kind, gint64 block, gint64 start_us, gint64 end_us, const char *args, ...)
{
  char members[EVENT / 2], name[48];
  va_list list;

  if (t == NULL)
    return;
  va_start (list, args);
  g_vsnprintf (members, sizeof members, args, list);
  va_end (list);
  if (block < 0)
    g_strlcpy (name, kind, sizeof name);
  else
    g_snprintf (name, sizeof name, "block %" G_GINT64_FORMAT, block);   /* viewers give each name its colour */
  write_event (t, ",\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%" G_GINT64_FORMAT ",\"dur\":%"
      G_GINT64_FORMAT ",\"args\":{%s}}", name, kind, track, start_us - t->opened_us, end_us - start_us, members);
}

void
dp_trace_transfer (DpTrace *t, int from, int to, gint64 block, int step, gint64 start_us, gint64 end_us)
{
  guint64 id;

  if (t == NULL)
    return;
  g_mutex_lock (&t->lock);
  id = t->transfers++;
  g_mutex_unlock (&t->lock);
  for (int end = 0; end < 2; end++)
    write_event (t, ",\n{\"name\":\"stage %d to %d\",\"cat\":\"transfer\",\"ph\":\"%c\",\"id\":%"
        G_GUINT64_FORMAT ",\"pid\":1,\"tid\":%d,\"ts\":%" G_GINT64_FORMAT ",\"args\":{\"block\":%" G_GINT64_FORMAT ",\"step\":%d}}", from,
        to, end ? 'e' : 'b', id, DP_TRACE_STAGE + (end ? to : from), (end ? end_us : start_us) - t->opened_us, block, step);
}

void
dp_trace_instant (DpTrace *t, int track, const char *kind, const char *args, ...)
{
  char members[EVENT / 2];
  va_list list;

  if (t == NULL)
    return;
  va_start (list, args);
  g_vsnprintf (members, sizeof members, args, list);
  va_end (list);
  write_event (t, ",\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":%d,\"ts\":%"
      G_GINT64_FORMAT ",\"args\":{%s}}", kind, kind, track, g_get_monotonic_time () - t->opened_us, members);
}

void
dp_trace_counter (DpTrace *t, const char *kind, gint64 value)
{
  if (t == NULL)
    return;
  write_event (t, ",\n{\"name\":\"%s\",\"ph\":\"C\",\"pid\":1,\"ts\":%" G_GINT64_FORMAT ",\"args\":{\"%s\":%" G_GINT64_FORMAT "}}", kind,
      g_get_monotonic_time () - t->opened_us, kind, value);
}

void
dp_trace_event (DpTrace *t, const DpTraceEvent *e)
{
  if (t == NULL)
    return;
  if (t->send) {
    g_mutex_lock (&t->lock);
    t->batch[t->batched++] = *e;
    if (t->batched == BATCH)
      pass_on (t);
    g_mutex_unlock (&t->lock);
    return;
  }
  gint64 clock = t->clock ? t->clock (e->stage) : 0, start = e->start_us + clock, end = e->end_us + clock;
  if (e->what == DP_TRACE_TRANSFER)
    dp_trace_transfer (t, e->from, e->stage, e->block, e->step, e->start_us + (t->clock ? t->clock (e->from) : 0), end);
  else if (e->what == DP_TRACE_PASS)
    dp_trace_span (t, DP_TRACE_STAGE + e->stage, "pass", e->block, start, end, "\"block\":%" G_GINT64_FORMAT ",\"step\":%d,\"element\":%d,"
        "\"iteration\":%" G_GINT64_FORMAT ",\"first_layer\":%g,\"layers\":%g", e->block, e->step, e->element, e->iteration,
        e->first_half / 2.0, e->halves / 2.0);
  else
    dp_trace_span (t, DP_TRACE_STAGE + e->stage, "load", -1, start, end, "\"first_layer\":%g,\"layers\":%g",
        e->first_half / 2.0, e->halves / 2.0);
}
