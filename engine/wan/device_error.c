/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device_error.h"

static void G_GNUC_PRINTF (4, 0)
set_error (GError **error, const DpDevice *dev, const char *message, const char *format, va_list args)
{
  g_autofree char *doing = g_strdup_vprintf (format, args);

  dp_error_set (error, dev->no_memory ? DP_ERROR_NO_MEMORY : DP_ERROR_DEVICE, "%s failed %s: %.256s", dev->name, doing, message);
}

gboolean
dp_error_check_device (DpDevice *dev, GError **error, const char *format, ...)
{
  char message[256];
  va_list args;

  if (dp_device_check (dev, message, sizeof message))
    return TRUE;
  va_start (args, format);
  set_error (error, dev, message, format, args);
  va_end (args);
  return FALSE;
}

gboolean
dp_error_check_latch (DpDevice *dev, GError **error, const char *format, ...)
{
  char message[256];
  va_list args;

  if (dp_device_take_error (dev, message, sizeof message))
    return TRUE;
  va_start (args, format);
  set_error (error, dev, message, format, args);
  va_end (args);
  return FALSE;
}

void
dp_error_no_room (DpDevice *dev, GError **error, gsize bytes, const char *help, const char *format, ...)
{
  g_autofree char *what = NULL;
  DpDeviceInfo info;
  char message[256];
  va_list args;

  va_start (args, format);
  what = g_strdup_vprintf (format, args);
  va_end (args);
  if (!dp_error_check_device (dev, error, "while %s was allocated", what))
    return;
  if (!dp_device_info (dev->name, &info, message, sizeof message))
    info.memory_free = 0;
  dp_error_set (error, DP_ERROR_NO_MEMORY, "%s needs %.1f MiB on %s, where %.1f MiB are free%s; %s", what, bytes / 1048576.0, dev->name,
      info.memory_free / 1048576.0, bytes < info.memory_free ? ", of which libraries and other programs need some" : "", help);
}
