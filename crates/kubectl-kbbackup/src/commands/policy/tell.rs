//! What was found out about a workload, in words.

use crate::{
    detect::{Found, Login, Value},
    ui::{Mark, Ui},
};

/// What was found, so that a wrong guess is seen before anything is written.
pub(super) fn tell(ui: &Ui, workload: &str, found: &Found) {
    ui.say(&ui.marked(Mark::Good, &format!("statefulset/{workload} is {} ({})", found.engine.title, found.because)));
    ui.say(&format!("  {:<10} {} ({})", "container", found.container, found.image));
    ui.say(&format!("  {:<10} {}", "port", found.port.number));
    ui.say(&format!("  {:<10} {}", "login", login_text(&found.login)));
    let volume = match &found.volume {
        Some(volume) => format!("{} at {}", volume.name, volume.mount_path),
        None => "none that is persistent was found".to_owned(),
    };
    ui.say(&format!("  {:<10} {volume}", "data"));
}

fn login_text(login: &Login) -> String {
    let user_text = |user: &Value| match user {
        Value::Literal(user) => format!("user {user}"),
        Value::Secret { name, key } => format!("user in secret/{name} key {key}"),
    };
    match login {
        Login::Known(credential) => {
            let password = match &credential.password {
                Value::Literal(_) => "password in the pod template".to_owned(),
                Value::Secret { name, key } => format!("password in secret/{name} key {key}"),
            };
            format!("{}, {password}", user_text(&credential.user))
        }
        Login::Open { user } => format!("{}, no password needed", user_text(user)),
        Login::Unknown { .. } => "no password was found".to_owned(),
    }
}
