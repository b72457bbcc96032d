/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparal.c: the plugin. Loading it does nothing but register the elements: no file is opened,
 * no device is looked for.
 */
#include "gstdualparalsei.h"
#include "gstdualparalsrc.h"

static gboolean
plugin_init (GstPlugin * plugin)
{
  return GST_ELEMENT_REGISTER (dualparalsrc, plugin)
      && GST_ELEMENT_REGISTER (dualparalsei, plugin);
}

GST_PLUGIN_DEFINE (GST_VERSION_MAJOR, GST_VERSION_MINOR, dualparal,
    "Endless video from a prompt, made by Wan2.1 video diffusion on any number "
    "of devices", plugin_init, VERSION, "LGPL", PACKAGE,
    "Unknown package origin")
