/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-users.h"

#include "console.h"

#define REALM "dualparal"
/* Fields of a token */
#define STEER "dualparal.steer"
#define NAME "dualparal.name"

#define LIVE_TYPE_AUTH (live_auth_get_type ())
G_DECLARE_FINAL_TYPE (LiveAuth, live_auth, LIVE, AUTH, GstRTSPAuth);

struct _LiveAuth
{
  GstRTSPAuth parent;
  Door *door;                   /* borrowed */
};

G_DEFINE_TYPE (LiveAuth, live_auth, GST_TYPE_RTSP_AUTH);

/* The name that the request gives, or NULL when it has no credentials */
static gchar *
claimed_name (GstRTSPMessage * request)
{
  GstRTSPAuthCredential **credentials =
      gst_rtsp_message_parse_auth_credentials (request,
      GST_RTSP_HDR_AUTHORIZATION);
  GstRTSPAuthParam **param;
  gchar *name = NULL;

  if (credentials && credentials[0]) {
    for (param = credentials[0]->params; param && *param && !name; param++)
      if (g_strcmp0 ((*param)->name, "username") == 0)
        name = g_strdup ((*param)->value);
    if (!name)
      name = g_strdup ("");
  }
  if (credentials)
    gst_rtsp_auth_credentials_free (credentials);
  return name;
}

static gboolean
live_auth_authenticate (GstRTSPAuth * auth, GstRTSPContext * ctx)
{
  const gchar *ip = gst_rtsp_connection_get_ip (ctx->conn);
  Door *door = LIVE_AUTH (auth)->door;
  gchar *name;

  GST_RTSP_AUTH_CLASS (live_auth_parent_class)->authenticate (auth, ctx);
  if (!ctx->token && (name = claimed_name (ctx->request))) {
    door_allows (door, ip, DOOR_LOGIN, TRUE);
    console_say_limited ("%s: wrong name or password, as user \"%.40s\"", ip, name);
    g_free (name);
  }
  return TRUE;
}

/* Not even looked at */
static gboolean
must_wait (GstRTSPAuth * auth, GstRTSPContext * ctx)
{
  GstRTSPMessage *response = ctx->response;
  gchar *header;

  if (ctx->token || !ctx->request || gst_rtsp_message_get_header (ctx->request,
          GST_RTSP_HDR_AUTHORIZATION, &header, 0) != GST_RTSP_OK
      || door_allows (LIVE_AUTH (auth)->door,
          gst_rtsp_connection_get_ip (ctx->conn), DOOR_LOGIN, FALSE))
    return FALSE;
  gst_rtsp_message_init_response (response, GST_RTSP_STS_SERVICE_UNAVAILABLE,
      gst_rtsp_status_as_text (GST_RTSP_STS_SERVICE_UNAVAILABLE), ctx->request);
  gst_rtsp_message_add_header (response, GST_RTSP_HDR_RETRY_AFTER, "1");
  gst_rtsp_client_send_message (ctx->client, ctx->session, response);
  return TRUE;
}

static gboolean
live_auth_check (GstRTSPAuth * auth, GstRTSPContext * ctx, const gchar * check)
{
  GstRTSPAuthClass *klass = GST_RTSP_AUTH_CLASS (live_auth_parent_class);

  if (must_wait (auth, ctx))
    return FALSE;
  if (!g_str_equal (check, GST_RTSP_AUTH_CHECK_URL)
      || ctx->method != GST_RTSP_SET_PARAMETER)
    return klass->check (auth, ctx, check);
  /* This asks who it is, and tells one who does not say so. What it returns is
   * another permission, that nobody has. */
  klass->check (auth, ctx, GST_RTSP_AUTH_CHECK_TRANSPORT_CLIENT_SETTINGS);
  return ctx->token != NULL;
}

static void
live_auth_class_init (LiveAuthClass * klass)
{
  GST_RTSP_AUTH_CLASS (klass)->check = live_auth_check;
  GST_RTSP_AUTH_CLASS (klass)->authenticate = live_auth_authenticate;
}

static void
live_auth_init (LiveAuth * auth)
{
}

GstRTSPAuth *
users_new (Door * door)
{
  GstRTSPAuth *users = g_object_new (LIVE_TYPE_AUTH, NULL);

  LIVE_AUTH (users)->door = door;
  gst_rtsp_auth_set_supported_methods (users, GST_RTSP_AUTH_DIGEST);
  gst_rtsp_auth_set_realm (users, REALM);
  return users;
}

void
users_add (GstRTSPAuth * users, const gchar * name, const gchar * password,
    gboolean may_steer)
{
  GstRTSPToken *token = gst_rtsp_token_new (GST_RTSP_TOKEN_MEDIA_FACTORY_ROLE,
      G_TYPE_STRING, USERS_ROLE, STEER, G_TYPE_BOOLEAN, may_steer,
      NAME, G_TYPE_STRING, name, NULL);

  gst_rtsp_auth_add_digest (users, name, password, token);
  gst_rtsp_token_unref (token);
}

gboolean
users_may_steer (GstRTSPContext * ctx)
{
  return !ctx->auth || (ctx->token && gst_rtsp_token_is_allowed (ctx->token, STEER));
}

gchar *
users_describe (GstRTSPContext * ctx)
{
  const gchar *ip = gst_rtsp_connection_get_ip (ctx->conn),
      *name = ctx->token ? gst_rtsp_token_get_string (ctx->token, NAME) : NULL;

  return name ? g_strdup_printf ("\"%s\" at %s", name, ip) : g_strdup (ip);
}
