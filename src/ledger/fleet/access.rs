//! How the Kubernetes API is reached, and what the process must keep access to for that.

use std::path::PathBuf;
use std::time::Duration;

use kube::Config;
use kube::config::Kubeconfig;

/// Where the shared ledger is, and how it is reached.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub name: String,
    /// The one of the pod, or of the kubeconfig, where absent.
    pub namespace: Option<String>,
    /// Outside of a cluster.
    pub kubeconfig: Option<PathBuf>,
    /// A clock that is off by more writes no dates.
    pub clock_skew: Duration,
}

impl StoreSettings {
    /// What the process must keep access to: the files that are read, and the port of the API.
    ///
    /// # Errors
    /// Where it is not told how the API is reached.
    pub fn needs(&self) -> std::io::Result<StoreNeeds> {
        let unusable = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
        let Some(file) = &self.kubeconfig else {
            let config = Config::incluster().map_err(|error| unusable(&error))?;
            let files = vec![PathBuf::from(SERVICE_ACCOUNT).join("token")];
            return Ok(StoreNeeds::of(files, &config.cluster_url));
        };
        let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
        let contexts = &kubeconfig.contexts;
        let current =
            contexts.iter().find(|one| Some(&one.name) == kubeconfig.current_context.as_ref());
        let context = current.and_then(|current| current.context.as_ref());
        let context = context.ok_or_else(|| unusable(&"the kubeconfig has no current context"))?;
        let cluster = kubeconfig.clusters.iter().find(|one| one.name == context.cluster);
        let cluster = cluster.and_then(|cluster| cluster.cluster.as_ref());
        let server = cluster.and_then(|cluster| cluster.server.as_deref());
        let server = server.ok_or_else(|| unusable(&"the kubeconfig names no server"))?;
        let server = server.parse().map_err(|error| unusable(&error))?;
        let mut files = vec![file.clone()];
        files.extend(
            cluster.and_then(|cluster| cluster.certificate_authority.as_ref()).map(PathBuf::from),
        );
        let has_own = |cluster: &&kube::config::Cluster| {
            cluster.certificate_authority.is_some() || cluster.certificate_authority_data.is_some()
        };
        if !cluster.is_some_and(|cluster| has_own(&cluster)) {
            files.push(PathBuf::from(SYSTEM_AUTHORITIES));
        }
        let user =
            kubeconfig.auth_infos.iter().find(|one| Some(&one.name) == context.user.as_ref());
        if let Some(user) = user.and_then(|user| user.auth_info.as_ref()) {
            if user.exec.is_some() {
                let why = "the kubeconfig has a program run for its credentials, which jwksd does not do: \
                           name a token file instead";
                return Err(unusable(&why));
            }
            let named = [&user.token_file, &user.client_certificate, &user.client_key];
            files.extend(named.into_iter().flatten().map(PathBuf::from));
        }
        Ok(StoreNeeds::of(files, &server))
    }
}

/// The files that are read, those that are never replaced, and the port of the API.
#[derive(Debug)]
pub struct StoreNeeds {
    pub files: Vec<PathBuf>,
    pub fixed_files: Vec<PathBuf>,
    pub port: u16,
}

impl StoreNeeds {
    fn of(files: Vec<PathBuf>, server: &hyper::Uri) -> Self {
        let default = if server.scheme_str() == Some("http") { 80 } else { 443 };
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        let resolver = RESOLVER.iter().filter(|_| !is_address).map(PathBuf::from);
        // What they lead to is what is opened.
        let resolver = resolver.filter_map(|file| file.canonicalize().ok());
        let port = server.port_u16().unwrap_or(default);
        Self { files, fixed_files: resolver.collect(), port }
    }
}

/// Where the addresses of names are looked up.
const RESOLVER: [&str; 3] = ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];

/// The authorities that the system trusts, where a kubeconfig names none.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where a pod finds its token, the API's CA and its namespace.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
