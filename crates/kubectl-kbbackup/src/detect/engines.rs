//! The table of engines: how to recognise one from a pod template, and how it is backed up.

/// What is known of an engine.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Name in labels, for example `postgresql`.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Last parts of image names that mean this engine.
    pub images: &'static [&'static str],
    pub port: i32,
    /// Environment variables whose presence is a strong sign.
    pub signs: &'static [&'static str],
    /// Where the data directory is told; else the usual places.
    pub data_env: &'static [&'static str],
    pub data_dirs: &'static [&'static str],
    /// Variables with the user's name, best first; each may exist as `<NAME>_FILE`.
    pub user_env: &'static [&'static str],
    pub default_user: &'static str,
    /// Variables with that user's password, best first.
    pub password_env: &'static [&'static str],
    /// Backup methods: name, and the ActionSet that does it. The first one is the default.
    pub methods: &'static [Method],
}

#[derive(Debug)]
pub(crate) struct Method {
    pub name: &'static str,
    pub action_set: &'static str,
    /// Name of the full method that an incremental one continues.
    pub full: Option<&'static str>,
}

const fn full(action_set: &'static str) -> Method {
    Method { name: "full", action_set, full: None }
}

const fn incremental(action_set: &'static str) -> Method {
    Method { name: "incremental", action_set, full: Some("full") }
}

/// The log, stored as it is written: with a full backup it reaches any time.
const fn log(action_set: &'static str) -> Method {
    Method { name: "log", action_set, full: None }
}

pub(crate) const ENGINES: &[Engine] = &[
    Engine {
        name: "postgresql",
        title: "PostgreSQL",
        images: &[
            "postgres",
            "postgresql",
            "postgis",
            "pgvector",
            "timescaledb",
            "timescaledb-ha",
            "spilo",
            "pgautofailover",
        ],
        port: 5432,
        signs: &[
            "POSTGRES_PASSWORD",
            "POSTGRES_PASSWORD_FILE",
            "POSTGRES_HOST_AUTH_METHOD",
            "POSTGRESQL_PASSWORD",
            "PGDATA",
        ],
        data_env: &["PGDATA", "POSTGRESQL_DATA_DIR"],
        data_dirs: &[
            "/var/lib/postgresql/data",
            "/var/lib/postgresql",
            "/bitnami/postgresql",
            "/home/postgres/pgdata",
            "/var/lib/pgsql",
        ],
        user_env: &["POSTGRES_USER", "POSTGRESQL_USERNAME"],
        default_user: "postgres",
        password_env: &["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD", "POSTGRES_POSTGRES_PASSWORD", "PGPASSWORD"],
        methods: &[full("kbb-postgres-full"), log("kbb-postgres-continuous")],
    },
    Engine {
        name: "mariadb",
        title: "MariaDB",
        images: &["mariadb", "mariadb-server", "mariadb-galera"],
        port: 3306,
        signs: &["MARIADB_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD_FILE", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD"],
        data_env: &[],
        data_dirs: &["/var/lib/mysql", "/bitnami/mariadb"],
        user_env: &[],
        default_user: "root",
        password_env: &["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"],
        methods: &[full("kbb-mariadb-full"), incremental("kbb-mariadb-incremental"), log("kbb-mariadb-continuous")],
    },
    Engine {
        name: "mysql",
        title: "MySQL",
        images: &["mysql", "mysql-server", "percona", "percona-server"],
        port: 3306,
        signs: &["MYSQL_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD_FILE", "MYSQL_ALLOW_EMPTY_PASSWORD"],
        data_env: &[],
        data_dirs: &["/var/lib/mysql", "/bitnami/mysql"],
        user_env: &[],
        default_user: "root",
        password_env: &["MYSQL_ROOT_PASSWORD"],
        methods: &[full("kbb-mysql-clone"), log("kbb-mysql-continuous")],
    },
    Engine {
        name: "redis",
        title: "Redis or Valkey",
        images: &["redis", "valkey", "redis-stack-server", "keydb"],
        port: 6379,
        signs: &["REDIS_PASSWORD", "VALKEY_PASSWORD", "ALLOW_EMPTY_PASSWORD"],
        data_env: &["REDIS_DATA_DIR", "VALKEY_DATA_DIR"],
        data_dirs: &["/data", "/bitnami/redis/data", "/bitnami/valkey/data", "/var/lib/redis"],
        user_env: &[],
        default_user: "default",
        password_env: &["REDIS_PASSWORD", "VALKEY_PASSWORD", "REDISCLI_AUTH"],
        methods: &[full("kbb-redis-rdb"), log("kbb-redis-continuous")],
    },
    Engine {
        name: "etcd",
        title: "etcd",
        images: &["etcd"],
        port: 2379,
        signs: &["ETCD_DATA_DIR", "ETCD_LISTEN_CLIENT_URLS"],
        data_env: &["ETCD_DATA_DIR"],
        data_dirs: &["/var/lib/etcd", "/bitnami/etcd", "/etcd-data"],
        user_env: &[],
        default_user: "root",
        password_env: &["ETCD_ROOT_PASSWORD"],
        methods: &[full("kbb-etcd")],
    },
    Engine {
        name: "mongodb",
        title: "MongoDB",
        images: &["mongo", "mongodb", "percona-server-mongodb"],
        port: 27017,
        signs: &["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_PASSWORD"],
        data_env: &[],
        data_dirs: &["/data/db", "/bitnami/mongodb"],
        user_env: &["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"],
        default_user: "root",
        password_env: &["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"],
        methods: &[full("kbb-mongodb-dump")],
    },
];

/// The engine of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static Engine> {
    ENGINES.iter().find(|engine| engine.name == name)
}

/// Last part of an image's name: `docker.io/library/postgres:16@sha256:…` is `postgres`.
pub(crate) fn image_word(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_tag_and_digest_of_an_image_do_not_matter() {
        for image in ["postgres", "postgres:16", "docker.io/library/postgres:16@sha256:ab", "reg:5000/x/postgres"] {
            assert_eq!(image_word(image), "postgres", "{image}");
        }
    }
}
