//! What stands below the help of each command.

macro_rules! examples {
    ($($name:ident = $text:literal;)*) => {
        $(pub(super) const $name: &str = concat!("Examples:\n", $text);)*
    };
}

examples! {
    SERVE = "  jwksd serve --keys ./keys --init
  jwksd serve --keys /keys --state /state --listen '[::]:8080' --ops-listen '[::]:9090'
  jwksd serve --config /etc/jwksd.toml";
    CHECK = "  jwksd check --keys ./keys
  jwksd check --keys ./keys --format json | jq '.[] | select(.result == \"refused\")'";
    RENDER = "  jwksd render --keys ./keys
  jwksd render --keys ./keys --audience client --at +3h";
    EXPORT = "  jwksd export --keys ./keys /srv/www
  jwksd export --keys ./keys --at +3h ./planned";
    CONFIG = "  jwksd config
  jwksd config --config jwksd.toml --format json";
    OPENAPI = "  jwksd openapi > openapi.json";
    COMPLETIONS = "  jwksd completions bash > /usr/share/bash-completion/completions/jwksd
  jwksd completions zsh > /usr/share/zsh/site-functions/_jwksd
  jwksd completions fish > ~/.config/fish/completions/jwksd.fish";
    MAN = "  jwksd man | man -l -
  jwksd man --out /usr/local/share/man/man1";
    KEYS = "  jwksd keys list --keys ./keys
  jwksd keys rotate --keys ./keys --audience client";
    ISSUE = "  jwksd keys issue --keys ./keys --audience client --algorithm RS256
  jwksd keys issue --keys ./keys --audience client --algorithm ES256 --valid-from +1d --valid-to +90d
  jwksd keys issue --keys ./keys --audience client --algorithm ES256 --invalidate-current --grace 1h";
    ROTATE = "  jwksd keys rotate --keys ./keys --audience client --dry-run
  jwksd keys rotate --keys ./keys --audience client --if-older-than 90d";
    LIST = "  jwksd keys list --keys ./keys --audience client
  jwksd keys list --keys ./keys --watch";
    SHOW = "  jwksd keys show --keys ./keys client-2026-11
  jwksd keys show --keys ./keys 0f8fad5b --format json";
    CURRENT = "  jwksd keys current --keys ./keys --audience client
  kid=$(jwksd keys current --keys ./keys --audience client --quiet)";
    TIMELINE = "  jwksd keys timeline --keys ./keys
  jwksd keys timeline --keys ./keys --from -1h --to +7d";
    INVALIDATE = "  jwksd keys invalidate --keys ./keys client-2026-11 --grace 1h --dry-run
  jwksd keys invalidate --keys ./keys client-2026-11 --now";
    REACTIVATE = "  jwksd keys reactivate --keys ./keys client-2026-11
  jwksd keys reactivate --keys ./keys client-2026-11 --valid-to +30d";
    DELETE = "  jwksd keys delete --keys ./keys client-2026-11 --dry-run
  jwksd keys delete --keys ./keys client-2026-11 --yes";
    TOKEN = "  jwksd token sign --keys ./keys --audience client --claims '{\"sub\": \"me\"}'
  jwksd token verify --keys ./keys TOKEN";
    SIGN = "  jwksd token sign --keys ./keys --audience client --claims '{\"sub\": \"me\"}' --ttl 10m";
    VERIFY = "  jwksd token verify TOKEN --jwks http://127.0.0.1:8080/.well-known/jwks.json
  SSL_CERT_FILE=ca.pem jwksd token verify TOKEN --jwks https://id.example.com/.well-known/jwks.json
  jwksd token verify TOKEN --jwks jwks.json
  jwksd token sign --keys ./keys --audience client --claims '{}' | jwksd token verify --keys ./keys -";
    JWKSD = "  jwksd serve --keys ./keys --init
  jwksd check --keys ./keys
  jwksd keys list --keys ./keys";
}
