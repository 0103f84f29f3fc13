package settings

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

func configMap(name string, data map[string]string) corev1.ConfigMap {
	return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: name}, Data: data}
}

func TestReadGivesWhatIsSetAndDefaultsForTheRest(t *testing.T) {
	t.Parallel()

	got, problems := Read([]corev1.ConfigMap{configMap("estiba", map[string]string{
		"default-volumes":     " opt-out\n",
		"unprotected":         "fail",
		"host-path-prefixes":  "/srv/data/, /mnt/x\n/opt\n",
		"secret-csi-drivers":  "a.example, b.example",
		"on-missing-snapshot": "previous",
		"image":               "registry.example/estiba:1",
		"cpuRequest":          "20m",
		"memLimit":            "8Mi",
		"secCtxRunAsUser":     "7",
		"secCtx":              "runAsUser: 5\nrunAsNonRoot: true",
	})})

	assert.Empty(t, problems)
	assert.Equal(t, Settings{
		DefaultVolumes: OptOut, Unprotected: UnprotectedFail, OnMissingSnapshot: v1alpha1.MissingPrevious, ExistingData: v1alpha1.ExistingRefuse, OnFileError: v1alpha1.FileErrorFail,
		HostPathPrefixes: []string{"/srv/data", "/mnt/x", "/opt"}, SecretCSIDrivers: []string{"a.example", "b.example"},
		Gate: Gate{
			Image:           "registry.example/estiba:1",
			Requests:        corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m")},
			Limits:          corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Mi")},
			SecurityContext: &corev1.SecurityContext{RunAsUser: ptr.To(int64(7)), RunAsNonRoot: ptr.To(true)},
		},
	}, got)

	got, problems = Read(nil)
	assert.Empty(t, problems)
	assert.Equal(t, Defaults(), got)
}

func TestReadNamesWhatIsWrongAndKeepsTheDefault(t *testing.T) {
	t.Parallel()

	const at = "ConfigMap velero/estiba, key "

	for name, tc := range map[string]struct {
		maps     []corev1.ConfigMap
		errors   []string
		warnings []string
	}{
		"a value that is not allowed": {
			maps:   []corev1.ConfigMap{configMap("estiba", map[string]string{"default-volumes": "optout"})},
			errors: []string{at + `default-volumes: "optout" is not allowed, only opt-in, opt-out; it counts as opt-in`},
		},
		"a key that there is none of": {
			maps:     []corev1.ConfigMap{configMap("estiba", map[string]string{"defaultVolumes": "opt-out"})},
			warnings: []string{at + "defaultVolumes: there is no such setting; it is ignored"},
		},
		"binary data": {
			maps: []corev1.ConfigMap{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba"}, BinaryData: map[string][]byte{"unprotected": nil},
			}},
			warnings: []string{at + "unprotected: there is no such setting; it is ignored"},
		},
		"two ConfigMaps": {
			maps:   []corev1.ConfigMap{configMap("two", map[string]string{"unprotected": "fail"}), configMap("one", nil)},
			errors: []string{"more than one ConfigMap bears the label " + contract.LabelPluginConfig + ": velero/one, velero/two; none of them counts until all but one are deleted or lose the label"},
		},
		"prefixes that would let everything in": {
			maps: []corev1.ConfigMap{configMap("estiba", map[string]string{"host-path-prefixes": "/, srv, /srv/../etc"})},
			errors: []string{
				at + `host-path-prefixes: "/" is not allowed, only absolute paths below /; it is left out`,
				at + `host-path-prefixes: "srv" is not allowed, only absolute paths below /; it is left out`,
				at + `host-path-prefixes: "/srv/../etc" is not allowed, only absolute paths below /; it is left out`,
			},
		},
		"numbers of the gate that are none": {
			maps: []corev1.ConfigMap{configMap("estiba", map[string]string{"memLimit": "much", "secCtxRunAsUser": "-1", "secCtxAllowPrivilegeEscalation": "perhaps"})},
			errors: []string{
				at + `memLimit: "much" is not allowed, only a quantity such as 100m or 64Mi; the default counts`,
				at + `secCtxAllowPrivilegeEscalation: "perhaps" is not allowed: strconv.ParseBool: parsing "perhaps": invalid syntax; the default counts`,
				at + `secCtxRunAsUser: "-1" is not allowed: only a whole number from 0 up (value out of range); the default counts`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, problems := Read(tc.maps)

			assert.Equal(t, Defaults(), got)
			assert.Equal(t, tc.errors, problems.Errors)
			assert.Equal(t, tc.warnings, problems.Warnings)
		})
	}
}

func TestAnnotationsCountForMoreThanTheConfigMap(t *testing.T) {
	t.Parallel()

	base, _ := Read([]corev1.ConfigMap{configMap("estiba", map[string]string{"default-volumes": "opt-out", "existing-data": "overwrite"})})

	forBackup, problems := base.ForBackup("b", map[string]string{contract.AnnotationDefaultVolumes: " opt-in ", contract.AnnotationUnprotected: "loud"})
	assert.Equal(t, OptIn, forBackup.DefaultVolumes)
	assert.Equal(t, UnprotectedWarn, forBackup.Unprotected)
	assert.Equal(t, []string{`Backup b, annotation estiba.dev/unprotected: "loud" is not allowed, only warn, fail; it counts as warn`}, problems.Errors)

	forRestore, problems := base.ForRestore("r", map[string]string{contract.AnnotationOnMissingSnapshot: "empty", contract.AnnotationExistingData: "", contract.AnnotationOnFileError: "skip"})
	assert.Empty(t, problems)
	assert.Equal(t, v1alpha1.MissingEmpty, forRestore.OnMissingSnapshot)
	assert.Equal(t, v1alpha1.ExistingOverwrite, forRestore.ExistingData)
	assert.Equal(t, v1alpha1.FileErrorSkip, forRestore.OnFileError)
}

func TestTheGateTakesWhatIsSetAndCanAlwaysBeMade(t *testing.T) {
	t.Parallel()

	s, problems := Read([]corev1.ConfigMap{configMap("estiba", map[string]string{
		"image": "x", "cpuRequest": "2", "memRequest": "64Mi", "memLimit": "32Mi", "secCtxRunAsUser": "0",
	})})
	assert.Equal(t, []string{"ConfigMap velero/estiba, key memRequest: 64Mi is above the limit of 32Mi; the request counts as the limit"}, problems.Errors)

	c := corev1.Container{
		Image: "default",
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
		},
		SecurityContext: &corev1.SecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(65532)), ReadOnlyRootFilesystem: ptr.To(true)},
	}
	require.NoError(t, s.Gate.Apply(&c))

	assert.Equal(t, "x", c.Image)
	assert.Equal(t, "2", c.Resources.Limits.Cpu().String(), "a default limit gives way to the request")
	assert.Equal(t, "32Mi", c.Resources.Requests.Memory().String())
	assert.Equal(t, &corev1.SecurityContext{RunAsNonRoot: ptr.To(false), RunAsUser: ptr.To(int64(0)), ReadOnlyRootFilesystem: ptr.To(true)}, c.SecurityContext)

	same := c.DeepCopy()
	require.NoError(t, Gate{}.Apply(same))
	assert.Equal(t, &c, same, "settings that set nothing change nothing")
}
