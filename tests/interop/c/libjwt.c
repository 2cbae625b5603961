/* libjwt as its header describes it: a keyring that is cached by max-age and ETag, and fetched anew, at most
 * once in its cool-down, for a kid that it does not know. The protocol is that of every client program here:
 * one JSON request a line on stdin, one answer a line on stdout. */
#include <jansson.h>
#include <jwt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

static struct {
    char *name;
    jwk_set_t *keys;
} verifiers[MOST];

static jwk_set_t **keys_of(const char *name)
{
    for (int i = 0; i < MOST; i++) {
        if (!verifiers[i].name)
            verifiers[i].name = strdup(name);
        if (!strcmp(verifiers[i].name, name))
            return &verifiers[i].keys;
    }
    exit(1);
}

/* Chooses the key of the token's kid. */
static int choose(jwt_t *jwt, jwt_config_t *config)
{
    jwt_value_t kid;

    jwt_set_GET_STR(&kid, "kid");
    if (jwt_header_get(jwt, &kid) != JWT_VALUE_ERR_NONE)
        return 1;
    config->key = jwks_find_bykid(config->ctx, kid.str_val);
    if (!config->key)
        return 1;
    config->alg = jwks_item_alg(config->key);
    return 0;
}

static int verify(jwk_set_t *keys, const char *issuer, const char *token, char *why, size_t room)
{
    jwt_checker_t *checker = jwt_checker_new();
    int wrong = jwt_checker_setcb(checker, choose, keys)
        || jwt_checker_claim_set(checker, JWT_CLAIM_ISS, issuer)
        || jwt_checker_claim_set(checker, JWT_CLAIM_SUB, "interop")
        || jwt_checker_verify(checker, token);
    if (wrong)
        snprintf(why, room, "%s", jwt_checker_error_msg(checker));
    jwt_checker_free(checker);
    return wrong;
}

int main(void)
{
    char *line = NULL, why[256] = "";
    size_t room = 0;

    while (getline(&line, &room, stdin) > 0) {
        json_t *request = json_loads(line, 0, NULL);
        const char *url = json_string_value(json_object_get(request, "url"));
        const char *issuer = json_string_value(json_object_get(request, "issuer"));
        const char *token = json_string_value(json_object_get(request, "token"));
        jwk_set_t **keys = keys_of(json_string_value(json_object_get(request, "verifier")));
        /* It can't be told which authority to trust. */
        jwks_url_config_t config = { .verify = strncmp(url, "https", 5) != 0, .cooldown = -1 };

        *keys = jwks_load_fromurl_cached(*keys, url, &config);
        int wrong = verify(*keys, issuer, token, why, sizeof(why));
        if (wrong) {
            *keys = jwks_refresh_fromurl(*keys);
            wrong = verify(*keys, issuer, token, why, sizeof(why));
        }
        json_t *answer = json_pack("{s:O, s:b}", "id", json_object_get(request, "id"), "ok", !wrong);
        if (wrong)
            json_object_set_new(answer, "error", json_string(why));
        else
            json_object_set_new(answer, "claims", json_pack("{s:s}", "sub", "interop"));
        char *text = json_dumps(answer, JSON_COMPACT);
        puts(text);
        fflush(stdout);
        free(text);
        json_decref(answer);
        json_decref(request);
    }
    return 0;
}
