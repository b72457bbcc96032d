/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "token_wire.h"
#include "wan/error.h"

#define BUSY_US 50              /* between two looks at a wire that is at work */
#define CONNECT_US 10000        /* and at one that is not connected yet */

void
dp_token_wire_clear (DpTokenWire *w)
{
  if (w->wire)
    dp_device_wires (w->dev)->free (w->wire);
  w->wire = NULL;
}

static gboolean
wait_until_idle (DpTokenWire *w, gulong us, GError **error)
{
  char message[256];

  for (;;) {
    DpWireState state = dp_device_wires (w->dev)->poll (w->wire, message, sizeof message);

    if (state == DP_WIRE_IDLE)
      return TRUE;
    if (state == DP_WIRE_FAILED)
      dp_error_set (error, DP_ERROR_DEVICE, "%s", message);
    if (state == DP_WIRE_FAILED || w->is_down (w->data)) {
      dp_token_wire_clear (w);
      return FALSE;
    }
    g_usleep (us);
  }
}

gboolean
dp_token_wire_begin (DpTokenWire *w, const DpWireId *id, gboolean receives, GError **error)
{
  const DpWireOps *ops = dp_device_wires (w->dev);
  char message[256];

  w->wire = ops->wire_new (w->dev, id, receives, message, sizeof message);
  if (w->wire == NULL)
    dp_error_set (error, DP_ERROR_DEVICE, "%s", message);
  return w->wire != NULL;
}

gboolean
dp_token_wire_connect (DpTokenWire *w, GError **error)
{
  return wait_until_idle (w, CONNECT_US, error);
}

gboolean
dp_token_wire_pass (DpTokenWire *w, float *tokens, gsize bytes, GError **error)
{
  if (w->wire == NULL) {
    dp_error_set (error, DP_ERROR_DEVICE, "%s: the connection to another process's GPU broke", w->dev->name);
    return FALSE;
  }
  if (!wait_until_idle (w, BUSY_US, error))     /* the other end may have been connected a little earlier */
    return FALSE;
  dp_device_wires (w->dev)->start (w->wire, tokens, bytes);
  return wait_until_idle (w, BUSY_US, error);
}
