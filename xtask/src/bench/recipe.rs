//! How the ranks of an implementation are started, as the measuring program reads it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::workspace::Workspace;

/// One implementation in one setting; `bench/src/recipe.rs` says what each field means.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) command: Vec<String>,
    pub(crate) starts_all_ranks: bool,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) when: &'static str,
    pub(crate) only_loop: Option<&'static str>,
}

impl Recipe {
    /// unisono itself: on memory of the ranks' own, and on registered memory.
    pub(crate) fn unisono(workspace: &Workspace, program: &Path) -> [Recipe; 2] {
        let version = own_version(workspace);
        let recipe = |name: &str, arguments: &[&str]| {
            let arguments = arguments.iter().map(|argument| argument.to_string());
            let command: Vec<String> =
                std::iter::once(program.display().to_string()).chain(arguments).collect();
            Recipe::each(name, version, &command)
        };
        let registered = recipe("unisono registered", &["caller", "--registered"]);
        [recipe("unisono", &["caller"]), Recipe { only_loop: Some("traffic"), ..registered }]
    }

    /// unisono's queue.
    pub(crate) fn unisono_queue(workspace: &Workspace, program: &Path) -> Recipe {
        let command = [program.display().to_string(), "queue-caller".to_string()];
        Recipe::each("unisono", own_version(workspace), &command)
    }

    /// A program that is started once for each rank.
    pub(crate) fn each(name: &str, version: &str, command: &[String]) -> Recipe {
        Recipe {
            name: name.to_string(),
            version: version.to_string(),
            command: command.to_vec(),
            starts_all_ranks: false,
            environment: Vec::new(),
            when: "always",
            only_loop: None,
        }
    }

    /// A program that starts all ranks.
    pub(crate) fn all(name: &str, version: &str, command: &[String]) -> Recipe {
        Recipe { starts_all_ranks: true, ..Recipe::each(name, version, command) }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Recipe {
        self.environment.push((name.to_string(), value.into()));
        self
    }

    /// With folders in front of a search path of the caller.
    pub(crate) fn with_path(self, name: &str, folders: &[PathBuf]) -> Recipe {
        let given = std::env::var(name).unwrap_or_default();
        let mut all: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        all.extend((!given.is_empty()).then_some(given));
        self.with(name, all.join(":"))
    }

    /// Another setting, for more ranks than cores only.
    pub(crate) fn crowded(self, name: &str) -> Recipe {
        Recipe { name: name.to_string(), when: "more_ranks_than_cores", ..self }
    }

    pub(crate) fn as_json(&self) -> Value {
        let environment: serde_json::Map<String, Value> =
            self.environment.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        json!({
            "name": self.name,
            "version": self.version,
            "command": self.command,
            "starts_all_ranks": self.starts_all_ranks,
            "environment": environment,
            "when": self.when,
            "only_loop": self.only_loop,
        })
    }
}

fn own_version(workspace: &Workspace) -> &str {
    workspace.metadata["packages"]
        .as_array()
        .and_then(|members| members.iter().find(|member| member["name"] == "unisono"))
        .and_then(|member| member["version"].as_str())
        .unwrap_or("of this folder")
}
