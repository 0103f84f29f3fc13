// Package config is the settings of the mover's processes: read from flags and
// the environment here and nowhere else, and checked as a whole before anything starts.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// Role is the process that the settings are for.
type Role string

// The roles.
const (
	// RoleNode is the daemon of a node.
	RoleNode Role = "node"
	// RoleController is the controller of the cluster.
	RoleController Role = "controller"
)

// Config is all settings.
type Config struct {
	// Role of the process.
	Role Role
	// Namespace of Velero, and of all of Estiba's objects.
	Namespace string
	// NodeName is the node of a daemon.
	NodeName string
	// PodsRoot is where the kubelet's pods folder is mounted.
	PodsRoot string
	// HostRoot is where those folders of the node are mounted, each at its own
	// path, that hostPath volumes may be moved of; it need not exist.
	HostRoot string
	// CacheDir is a folder for the caches of repositories.
	CacheDir string
	// MetadataCache and ContentCache bound the two caches of each repository, in bytes.
	MetadataCache, ContentCache int64
	// CacheTotal bounds the caches of all repositories together, in bytes.
	CacheTotal int64
	// MetricsAddress and HealthAddress are where metrics and probes are served.
	MetricsAddress, HealthAddress string
	// LogLevel is debug, info or error.
	LogLevel string
	// LeaderElection lets one of several controllers work.
	LeaderElection bool
	// Heartbeat is how often a daemon renews its Lease.
	Heartbeat time.Duration
	// Drain is how long workers may take to end when the process is stopped.
	Drain time.Duration
	// Slots is how many workers run at a time, Reserved how many more are planned for frozen applications.
	Slots, Reserved int
	// MemoryLimit of the container, in bytes; 0 finds it out.
	MemoryLimit int64
	// MemoryShare is what of it the daemon keeps for itself, in bytes.
	MemoryShare int64
	// Strict refuses to run a worker where the kernel lacks a fence.
	Strict bool
	// Format of new repositories.
	Format engine.Format
	// UploadLimit and DownloadLimit bound the bytes per second to and from object stores; 0 means no bound.
	UploadLimit, DownloadLimit int64
	// StoreRetry bounds how long a failing request to a store is repeated, StoreStall how long one may move no byte.
	StoreRetry, StoreStall time.Duration
	// VolumeStall bounds how long one call to a volume may take.
	VolumeStall time.Duration
	// Env returns the variables of the environment that clouds set for pods that have a role of theirs.
	Env func(name string) string
	// CredentialsSecret and CredentialsKey name the credentials of locations that name none.
	CredentialsSecret, CredentialsKey string
	// Bounds of the state machine.
	Bounds state.Bounds
}

const (
	mebi = 1 << 20

	// minCacheTotal keeps a mistyped unit from leaving workers without caches.
	minCacheTotal = 64 * mebi

	defaultNamespace = "velero"
)

// Default returns the settings of a role where nothing is set. The function gives
// the variables of the environment: NODE_NAME and VELERO_NAMESPACE count.
func Default(role Role, env func(string) string) Config {
	c := Config{
		Role:           role,
		Namespace:      env("VELERO_NAMESPACE"),
		NodeName:       env("NODE_NAME"),
		PodsRoot:       "/host_pods",
		HostRoot:       "/host",
		CacheDir:       "/cache",
		MetadataCache:  256 * mebi,
		ContentCache:   256 * mebi,
		CacheTotal:     6144 * mebi,
		MetricsAddress: ":8085",
		HealthAddress:  ":8086",
		LogLevel:       "info",
		LeaderElection: role == RoleController,
		Heartbeat:      10 * time.Second,
		Drain:          20 * time.Second,
		Slots:          2,
		Reserved:       1,
		MemoryShare:    256 * mebi,
		Format:         engine.FormatFast,
		StoreRetry:     15 * time.Minute,
		StoreStall:     2 * time.Minute,
		VolumeStall:    5 * time.Minute,

		Env:               env,
		CredentialsSecret: "cloud-credentials",
		CredentialsKey:    "cloud",
		Bounds:            state.DefaultBounds(),
	}
	if c.Namespace == "" {
		c.Namespace = defaultNamespace
	}

	if role == RoleController {
		c.Reserved = 0
		c.CacheTotal = 3072 * mebi
	}

	return c
}

// AddFlags adds a flag for each setting that the role has.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Namespace, "velero-namespace", c.Namespace, "Velero's namespace; the default is $VELERO_NAMESPACE")
	f.StringVar(&c.CacheDir, "cache-dir", c.CacheDir, "folder for the caches of repositories")
	f.Var(&size{&c.MetadataCache}, "metadata-cache", "maximum size of one repository's metadata cache")
	f.Var(&size{&c.ContentCache}, "content-cache", "maximum size of one repository's content cache")
	f.Var(&size{&c.CacheTotal}, "cache-total", "maximum size of the caches of all repositories; the least recently used ones are removed")
	f.StringVar(&c.MetricsAddress, "metrics-address", c.MetricsAddress, "address of the metrics endpoint; 0 disables it")
	f.StringVar(&c.HealthAddress, "health-address", c.HealthAddress, "address of /healthz and /readyz")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "log level: debug, info or error")
	f.DurationVar(&c.Drain, "drain-timeout", c.Drain, "time for workers to end when the process stops")
	f.IntVar(&c.Slots, "slots", c.Slots, "number of workers that run at a time")
	f.Var(&size{&c.MemoryLimit}, "memory-limit", "memory limit of the container; 0 reads it from the cgroup")
	f.Var(&size{&c.MemoryShare}, "memory-share", "part of the memory limit reserved for this process")
	f.BoolVar(&c.Strict, "strict", c.Strict, "fail instead of running a worker on a kernel that lacks a fence")
	f.Var(&size{&c.UploadLimit}, "upload-limit", "upload limit of all workers together, in bytes per second; 0 is unlimited")
	f.Var(&size{&c.DownloadLimit}, "download-limit", "download limit of all workers together, in bytes per second; 0 is unlimited")
	f.DurationVar(&c.StoreRetry, "store-retry-timeout", c.StoreRetry, "time for which a failing request to an object store is retried")
	f.DurationVar(&c.StoreStall, "store-stall-timeout", c.StoreStall, "time without a byte after which a request to an object store fails")
	f.StringVar(&c.CredentialsSecret, "credentials-secret", c.CredentialsSecret, "Secret with the credentials of locations that name none; without it, the role of this pod is used")
	f.StringVar(&c.CredentialsKey, "credentials-key", c.CredentialsKey, "key of the credentials in that Secret")
	f.DurationVar(&c.Bounds.NodeLost, "node-lost-timeout", c.Bounds.NodeLost, "time without a heartbeat after which a node counts as lost; the same value for controller and daemons")
	f.DurationVar(&c.Bounds.Gate, "gate-timeout", c.Bounds.Gate, "time for a scheduled pod to reach its gate, and for a volume to be mounted")

	if c.Role == RoleNode {
		c.addNodeFlags(f)
	} else {
		c.addControllerFlags(f)
	}
}

func (c *Config) addNodeFlags(f *pflag.FlagSet) {
	f.StringVar(&c.NodeName, "node-name", c.NodeName, "name of this daemon's node; the default is $NODE_NAME")
	f.StringVar(&c.PodsRoot, "pods-root", c.PodsRoot, "mount path of the kubelet's pods folder")
	f.StringVar(&c.HostRoot, "host-root", c.HostRoot, "folder below which the node's folders for hostPath volumes are mounted, each at its own path")
	f.DurationVar(&c.Heartbeat, "heartbeat", c.Heartbeat, "interval at which the daemon renews its Lease")
	f.IntVar(&c.Reserved, "reserved-slots", c.Reserved, "number of further workers that memory is planned for; jobs of applications quiesced by hooks wait for no slot")
	f.DurationVar(&c.VolumeStall, "volume-stall-timeout", c.VolumeStall, "time for a single call to a volume; a sync may take twelve times as long")
	f.DurationVar(&c.Bounds.Cancel, "cancel-timeout", c.Bounds.Cancel, "time for a canceled worker to end")
	f.DurationVar(&c.Bounds.Freeze, "freeze-timeout", c.Bounds.Freeze, "maximum time that an application stays quiesced for a job without a deadline of its own")
	f.DurationVar(&c.Bounds.MissingJob, "missing-job-timeout", c.Bounds.MissingJob, "time that a gate waits for a job that does not exist")
	f.Int32Var(&c.Bounds.Attempts, "attempts", c.Bounds.Attempts, "maximum number of workers started for one job")
	f.DurationVar(&c.Bounds.RetryDelay, "retry-delay", c.Bounds.RetryDelay, "delay before a job's second attempt; it doubles with each attempt")
}

func (c *Config) addControllerFlags(f *pflag.FlagSet) {
	f.BoolVar(&c.LeaderElection, "leader-election", c.LeaderElection, "leader election among the controller's replicas")
	f.StringVar((*string)(&c.Format), "repository-format", string(c.Format), "format of new repositories: fast or fips")
	f.DurationVar(&c.Bounds.Unscheduled, "unscheduled-timeout", c.Bounds.Unscheduled, "time for a restored pod to be scheduled")
	f.DurationVar(&c.Bounds.Staging, "staging-timeout", c.Bounds.Staging, "time for a staging pod to run")
	f.DurationVar(&c.Bounds.Interruptions, "interruption-timeout", c.Bounds.Interruptions,
		"time from a job's first start within which it is retried when its staging pod was evicted or deleted")
	f.IntVar(&c.Bounds.StagingPods, "staging-pods", c.Bounds.StagingPods, "maximum number of staging pods at a time")
	f.DurationVar(&c.Bounds.NoDaemon, "no-daemon-timeout", c.Bounds.NoDaemon, "time that a job waits on a node whose daemon never had a heartbeat")
	f.DurationVar(&c.Bounds.MissingPod, "missing-pod-timeout", c.Bounds.MissingPod, "time for the pod of a restore to appear after Velero has created all objects")
	f.DurationVar(&c.Bounds.Abandon, "deletion-timeout", c.Bounds.Abandon, "time for which the deletion of a snapshot is retried when its location or repository does not exist")
	f.DurationVar(&c.Bounds.Retention, "job-retention", c.Bounds.Retention, "time that the object of a finished job is kept, unless a pod's gate still needs it")
}

// Validate says what is wrong with the settings, all of it at once.
func (c *Config) Validate() error {
	var errs []error

	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}

	need(c.Role == RoleNode || c.Role == RoleController, "role %q is neither node nor controller", c.Role)
	need(c.Namespace != "", "--velero-namespace is empty")
	need(c.Role != RoleNode || c.NodeName != "", "--node-name is empty, and so is $NODE_NAME")
	need(c.Role != RoleNode || filepath.IsAbs(c.PodsRoot), "--pods-root %q is not an absolute path", c.PodsRoot)
	need(c.Role != RoleNode || filepath.IsAbs(c.HostRoot), "--host-root %q is not an absolute path", c.HostRoot)
	need(filepath.IsAbs(c.CacheDir), "--cache-dir %q is not an absolute path", c.CacheDir)
	need(c.CacheTotal >= minCacheTotal, "--cache-total is %d, expected at least %d", c.CacheTotal, int64(minCacheTotal))
	need(c.Slots > 0, "--slots is %d, expected at least 1", c.Slots)
	need(c.Reserved >= 0, "--reserved-slots is %d, expected at least 0", c.Reserved)
	need(c.Bounds.StagingPods > 0, "--staging-pods is %d, expected at least 1", c.Bounds.StagingPods)
	need(c.Bounds.Attempts > 0, "--attempts is %d, expected at least 1", c.Bounds.Attempts)
	need(c.Format == engine.FormatFast || c.Format == engine.FormatFIPS, "--repository-format %q is neither fast nor fips", c.Format)
	need(c.LogLevel == "debug" || c.LogLevel == "info" || c.LogLevel == "error", "--log-level %q is none of debug, info and error", c.LogLevel)
	need(2*c.Heartbeat < c.Bounds.NodeLost, "--heartbeat %s is not well below the time after which a node counts as lost (%s)", c.Heartbeat, c.Bounds.NodeLost)

	for name, n := range map[string]int64{
		"metadata-cache": c.MetadataCache, "content-cache": c.ContentCache, "memory-limit": c.MemoryLimit, "memory-share": c.MemoryShare,
		"upload-limit": c.UploadLimit, "download-limit": c.DownloadLimit,
	} {
		need(n >= 0, "--%s is %d, expected at least 0", name, n)
	}

	for name, d := range map[string]time.Duration{
		"heartbeat": c.Heartbeat, "drain-timeout": c.Drain, "gate-timeout": c.Bounds.Gate, "cancel-timeout": c.Bounds.Cancel,
		"freeze-timeout": c.Bounds.Freeze, "retry-delay": c.Bounds.RetryDelay, "unscheduled-timeout": c.Bounds.Unscheduled, "staging-timeout": c.Bounds.Staging,
		"node-lost-timeout": c.Bounds.NodeLost, "no-daemon-timeout": c.Bounds.NoDaemon, "missing-pod-timeout": c.Bounds.MissingPod, "missing-job-timeout": c.Bounds.MissingJob,
		"job-retention": c.Bounds.Retention, "interruption-timeout": c.Bounds.Interruptions, "deletion-timeout": c.Bounds.Abandon, "store-retry-timeout": c.StoreRetry, "store-stall-timeout": c.StoreStall,
		"volume-stall-timeout": c.VolumeStall,
	} {
		need(d > 0, "--%s is %s, expected more than 0", name, d)
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("settings: %w", err)
	}

	return nil
}

// size is a flag of bytes, in the way of Kubernetes' quantities.
type size struct{ bytes *int64 }

// String returns the quantity.
func (s *size) String() string {
	if s.bytes == nil {
		return "0"
	}

	return resource.NewQuantity(*s.bytes, resource.BinarySI).String()
}

// Set reads a quantity.
func (s *size) Set(text string) error {
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf("%q is not a quantity such as 512Mi: %w", text, err)
	}

	*s.bytes = q.Value()

	return nil
}

// Type names the flag's type.
func (s *size) Type() string { return "quantity" }
