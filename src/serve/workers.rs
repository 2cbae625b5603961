//! Threads that serve the public listener beside the first one, each with a runtime of its own.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::shutdown::ServerFuture;
use crate::server::listener::{Listener, ListeningSocket};
use crate::server::tls::TlsConfig;

/// A thread that was not started yet.
pub(super) struct Worker {
    runtime: Runtime,
    serving: Vec<ServerFuture>,
}

impl Worker {
    pub(super) fn new(
        sockets: Vec<ListeningSocket>,
        tls: Option<&TlsConfig>,
        serve: impl Fn(Listener) -> ServerFuture,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // Sockets belong to the runtime in which they are taken.
        let entered = runtime.enter();
        let serving = sockets.into_iter().map(|socket| {
            let listener = Listener::on(socket)?.with_tls(tls);
            Ok(serve(listener))
        });
        let serving = serving.collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Self { runtime, serving })
    }

    /// Starts the thread. The returned future ends when the thread does.
    pub(super) fn start(self, number: usize) -> io::Result<ServerFuture> {
        let (alive, ended) = oneshot::channel::<()>();
        let answer = move || {
            // Dropped however the thread ends.
            let _alive = alive;
            let Self { runtime, serving } = self;
            runtime.block_on(async {
                let tasks: Vec<_> = serving.into_iter().map(tokio::spawn).collect();
                // One that panicked has been reported by the runtime.
                for task in tasks {
                    let _ = task.await;
                }
            });
        };
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(answer)?;
        Ok(Box::pin(async move {
            let _ = ended.await;
        }))
    }
}
