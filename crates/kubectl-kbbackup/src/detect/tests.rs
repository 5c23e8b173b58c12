use serde_json::json;

use super::*;

fn workload(container: serde_json::Value, volumes: serde_json::Value, templates: serde_json::Value) -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": {"name": "pg"},
        "spec": {
            "serviceName": "pg",
            "selector": {"matchLabels": {"app": "pg"}},
            "template": {"metadata": {"labels": {"app": "pg"}}, "spec": {"containers": [container], "volumes": volumes}},
            "volumeClaimTemplates": templates
        }
    }))
    .unwrap()
}

fn data() -> serde_json::Value {
    json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}])
}

fn plain() -> StatefulSet {
    workload(
        json!({
            "name": "postgres",
            "image": "postgres:16",
            "env": [
                {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "password"}}},
                {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"}
            ],
            "ports": [{"containerPort": 5432, "name": "sql"}],
            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]
        }),
        json!([]),
        data(),
    )
}

#[test]
fn the_usual_postgres_is_recognised() {
    let found = detect(&plain(), None, None).unwrap();
    assert_eq!(found.engine.name, "postgresql");
    assert_eq!(found.because, "image postgres:16, variable POSTGRES_PASSWORD, port 5432");
    assert_eq!(found.port, Port { number: 5432, name: Some("sql".into()), is_first: true });
    assert_eq!(found.volume, Some(DataVolume { name: "data".into(), mount_path: "/var/lib/postgresql/data".into() }));
    assert_eq!(
        found.login,
        Login::Known(Credential {
            user: Value::Literal("postgres".into()),
            password: Value::Secret { name: "pg".into(), key: "password".into() }
        })
    );
}

#[test]
fn a_password_file_leads_to_its_secret() {
    let workload = workload(
        json!({
            "name": "db",
            "image": "registry.example/bitnami/postgresql:17",
            "env": [
                {"name": "POSTGRES_PASSWORD_FILE", "value": "/opt/secrets/postgres-password"},
                {"name": "POSTGRES_USER", "value": "app"}
            ],
            "volumeMounts": [
                {"name": "secrets", "mountPath": "/opt/secrets/"},
                {"name": "data", "mountPath": "/bitnami/postgresql"}
            ]
        }),
        json!([{"name": "secrets", "secret": {"secretName": "release-postgresql"}}]),
        data(),
    );
    let Login::Known(credential) = detect(&workload, None, None).unwrap().login else { panic!("no login") };
    assert_eq!(credential.user, Value::Literal("app".into()));
    assert_eq!(
        credential.password,
        Value::Secret { name: "release-postgresql".into(), key: "postgres-password".into() }
    );
}

#[test]
fn a_strange_image_is_known_by_its_variables() {
    let workload = workload(
        json!({"name": "db", "image": "acme/database:1", "env": [{"name": "POSTGRES_PASSWORD", "value": "secret"}]}),
        json!([]),
        json!([]),
    );
    let found = detect(&workload, None, None).unwrap();
    assert_eq!(found.engine.name, "postgresql");
    assert_eq!(found.volume, None);
    assert!(!format!("{:?}", found.login).contains("secret\""), "{:?}", found.login);
}

#[test]
fn something_else_is_not_guessed() {
    let workload = workload(json!({"name": "web", "image": "nginx:1"}), json!([]), json!([]));
    assert_eq!(detect(&workload, None, None).unwrap_err(), Unknown::Engine { images: vec!["nginx:1".into()] });
}

#[test]
fn mariadb_wins_over_mysql_variables() {
    let workload = workload(
        json!({"name": "db", "image": "mariadb:11", "env": [{"name": "MYSQL_ROOT_PASSWORD", "value": "x"}]}),
        json!([]),
        json!([]),
    );
    assert_eq!(detect(&workload, None, None).unwrap().engine.name, "mariadb");
}

#[test]
fn the_volume_that_holds_pgdata_is_the_data_volume() {
    let workload = workload(
        json!({
            "name": "db",
            "image": "postgres:18",
            "env": [{"name": "PGDATA", "value": "/srv/pg/main"}],
            "volumeMounts": [{"name": "wal", "mountPath": "/wal"}, {"name": "data", "mountPath": "/srv"}]
        }),
        json!([]),
        json!([{"metadata": {"name": "wal"}}, {"metadata": {"name": "data"}}]),
    );
    assert_eq!(detect(&workload, None, None).unwrap().volume.unwrap().name, "data");
}

#[test]
fn trust_needs_no_password() {
    let workload = workload(
        json!({"name": "db", "image": "postgres:18", "env": [{"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"}]}),
        json!([]),
        json!([]),
    );
    assert_eq!(detect(&workload, None, None).unwrap().login, Login::Open { user: Value::Literal("postgres".into()) });
}
