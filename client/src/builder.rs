//! What all builders of requests have in common: the options of a request, and that awaiting it sends it.

/// The options that all requests share.
macro_rules! request_options {
    ($(impl [$($generic:ident),*] $name:ty, $field:ident $(. $inner:ident)?;)+) => {$(
        impl<$($generic),*> $name {
            /// Replicas that must answer a read.
            pub fn r(mut self, r: u8) -> Self {
                self.$field$(.$inner)?.r = Some(r);
                self
            }

            /// Replicas that must acknowledge a write.
            pub fn w(mut self, w: u8) -> Self {
                self.$field$(.$inner)?.w = Some(w);
                self
            }

            /// Whether fallbacks count when primaries are down.
            pub fn sloppy(mut self, sloppy: bool) -> Self {
                self.$field$(.$inner)?.sloppy = Some(sloppy);
                self
            }

            /// How long one attempt may take.
            pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
                self.$field$(.$inner)?.attempt_timeout = Some(timeout);
                self
            }

            /// How long the request may take with all its attempts and waits.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.$field$(.$inner)?.timeout = Some(timeout);
                self
            }

            /// When to try again.
            pub fn retry(mut self, policy: impl RetryPolicy) -> Self {
                self.$field$(.$inner)?.retry = Some(Arc::new(policy));
                self
            }

            /// Sends the request to this node and no other, given by its name or its `host:port`.
            pub fn via(mut self, node: impl AsRef<str>) -> Self {
                self.$field$(.$inner)?.via = Some(Arc::from(node.as_ref()));
                self
            }

            /// Its place in a trace: see [`Profile::trace`](crate::Profile::trace).
            pub fn trace(mut self, trace: driftless_proto::TraceContext) -> Self {
                self.$field$(.$inner)?.trace = Some(trace);
                self
            }

            /// Takes all that this profile decides.
            pub fn profile(mut self, profile: Profile) -> Self {
                self.$field$(.$inner)? = profile;
                self
            }
        }
    )+};
}

/// Awaiting a request is sending it, in a box.
macro_rules! await_by_send {
    ($($name:ident => $output:ty;)+) => {$(
        impl IntoFuture for $name {
            type Output = $output;
            type IntoFuture = BoxFuture<'static, $output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    )+};
}

pub(crate) use {await_by_send, request_options};
