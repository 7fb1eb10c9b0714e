//! Whole job files as people write them. Every one of them is taken, and the published schema takes it too.

/// A rolling deployment, a migration that must not run twice, a collection from every machine.
pub const EXAMPLES: [&str; 3] = [
    r#"
name = "deploy-web"
target = { pool = "web", labels = ["env=prod"], pick = "all", max_parallel = "25%", max_failed = 1 }
concurrency = { group = "web-prod", on_conflict = "queue" }        # queue | reject | cancel-older
timeout = "30m"
[params]
release = { required = true, pattern = '^\d+\.\d+\.\d+$' }
[[step]]
id = "switch"
run = '''
ln -sfn "$PWD/release" "$APP_ROOT/current"
systemctl restart web.service
'''
env = { APP_ROOT = "/srv/web" }
effect = "idempotent"
timeout = "2m"
[[step]]
id = "smoke"
run = "curl -fsS localhost:8080/health"
effect = "read-only"
retry = { limit = 5, on_exit = [7, 22], backoff = "2s..30s" }
[[step]]
id = "rollback"
when = "failure"                                                   # success (default) | failure | always
run = 'ln -sfn "$APP_ROOT/previous" "$APP_ROOT/current" && systemctl restart web.service'
env = { APP_ROOT = "/srv/web" }
effect = "idempotent"
"#,
    r#"
name = "migrate-billing"
target = { pool = "db", pick = "one", sticky = true }              # the agent that had the last one, if it is there
concurrency = { group = "billing-schema", on_conflict = "reject" }
[[step]]
id = "backup"
run = 'pg_dump -Fc "$DB_URL" > billing.dump'
effect = "idempotent"
[[step]]
id = "migrate"
run = 'migrate up --to 0042'
effect = "guarded"
check = 'migrate status --at-least 0042'
[[step]]
id = "notify-bank"
run = './post-cutover-notice'                                      # effect defaults to "once"
"#,
    r#"
name = "collect-diagnostics"
target = { labels = ["os=debian12"], pick = "all", skip_offline = false, expires = "24h" }
[[step]]
id = "snapshot"
run = 'journalctl -u web.service --since -2h --no-pager > web.log; ss -s > sockets.txt; df -P > disk.txt'
effect = "read-only"
limits = { memory = "256M", cpu = "50%", output = "10MB" }
"#,
];

/// The same files with what later versions bring, and the keys that are refused until then.
pub const WITH_LATER: [(&str, &str, &str, &[&str]); 3] = [
    (
        EXAMPLES[0],
        "[[step]]\nid = \"switch\"",
        "[[step]]\nid = \"fetch\"\nget = { artifact = \"web-${{ params.release }}.tar.zst\", to = \"release\" }\n\
         effect = \"idempotent\"\n[[step]]\nid = \"switch\"",
        &["get"],
    ),
    (
        EXAMPLES[1],
        "[[step]]\nid = \"backup\"",
        "[secrets]\nDB_URL = { from = \"billing/db_url\", as = \"env\" }\n[[step]]\nid = \"backup\"\n\
         put = [{ path = \"billing.dump\", keep = \"30d\" }]",
        &["secrets", "put"],
    ),
    (
        EXAMPLES[2],
        "effect = \"read-only\"",
        "effect = \"read-only\"\nput = [{ path = \"*.{log,txt}\", max_size = \"50MB\" }]",
        &["put"],
    ),
];
