/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * devices.h: on which devices a unit test runs: two CPUs, or those that --devices names, in turn.
 */
#pragma once

#include <glib.h>
#include "kernels/device.h"

static char **named_devices;

/** Takes "--devices cuda:0,cuda:1" out of the arguments, if it is there. */
static inline void
test_devices_init (int *argc, char **argv)
{
  if (*argc == 3 && g_str_equal (argv[1], "--devices")) {
    named_devices = g_strsplit (argv[2], ",", -1);
    *argc = 1;
  }
}

/** The i-th of them. */
static inline const char *
test_device (int i)
{
  return named_devices ? named_devices[i % g_strv_length (named_devices)] : i % 2 ? "cpu" : "ref";
}

static inline DpDevice *
open_device (const char *name)
{
  char error[256];
  DpDevice *dev = dp_device_open (name, 1, error, sizeof error);

  if (dev == NULL)
    g_error ("%s", error);
  return dev;
}
