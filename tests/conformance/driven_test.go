package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	biav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/backupitemaction/v2"
	riav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/restoreitemaction/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/tests/conformance/velerodriver/wire"
)

const (
	// driverVariable names the driver of another Velero, through which the tests then call the plugin.
	driverVariable = "ESTIBA_VELERO_DRIVER"
	// pluginVariable names the folder of a plugin that is built already.
	pluginVariable = "ESTIBA_PLUGIN_DIR"
)

// driven calls the actions through the driver of another Velero.
type driven struct {
	requests  *json.Encoder
	responses *json.Decoder
}

func drive(t *testing.T, driver string, log io.Writer) driven {
	t.Helper()

	// Ended by closing its input, so that it takes its plugins along.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), driver, pluginDir)
	cmd.Stderr = log

	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	})

	return driven{requests: json.NewEncoder(in), responses: json.NewDecoder(out)}
}

func (d driven) call(r wire.Request) (wire.Response, error) {
	var response wire.Response
	if err := d.requests.Encode(r); err != nil {
		return response, err
	}

	if err := d.responses.Decode(&response); err != nil {
		return response, err
	}

	if response.Error != "" {
		return response, errors.New(response.Error)
	}

	return response, nil
}

func (d driven) GetBackupItemActionV2(name string) (biav2.BackupItemAction, error) {
	return drivenBackup{d, name}, nil
}

func (d driven) GetRestoreItemActionV2(name string) (riav2.RestoreItemAction, error) {
	return drivenRestore{d, name}, nil
}

func (d driven) GetDeleteItemAction(name string) (velero.DeleteItemAction, error) {
	return drivenDelete{d, name}, nil
}

type drivenBackup struct {
	driven
	name string
}

func (a drivenBackup) Name() string { return a.name }

func (a drivenBackup) ask(method, operation string, item runtime.Unstructured, backup *velerov1.Backup) (wire.Response, error) {
	r := wire.Request{Kind: wire.Backup, Name: a.name, Method: method, Operation: operation}

	var err error
	if r.Item, err = text(item); err != nil {
		return wire.Response{}, err
	}

	if r.Owner, err = json.Marshal(backup); err != nil {
		return wire.Response{}, err
	}

	return a.call(r)
}

func (a drivenBackup) AppliesTo() (velero.ResourceSelector, error) {
	response, err := a.ask(wire.AppliesTo, "", nil, nil)

	return response.Selector, err
}

func (a drivenBackup) Execute(item runtime.Unstructured, backup *velerov1.Backup) (runtime.Unstructured, []velero.ResourceIdentifier, string, []velero.ResourceIdentifier, error) {
	response, err := a.ask(wire.Execute, "", item, backup)
	if err != nil {
		return nil, nil, "", nil, err
	}

	updated, err := object(response.Item)

	return updated, response.Additional, response.Operation, response.Later, err
}

func (a drivenBackup) Progress(operation string, backup *velerov1.Backup) (velero.OperationProgress, error) {
	response, err := a.ask(wire.Progress, operation, nil, backup)

	return response.Progress, err
}

func (a drivenBackup) Cancel(operation string, backup *velerov1.Backup) error {
	_, err := a.ask(wire.Cancel, operation, nil, backup)

	return err
}

type drivenRestore struct {
	driven
	name string
}

func (a drivenRestore) Name() string { return a.name }

func (a drivenRestore) ask(method, operation string, input velero.RestoreItemActionExecuteInput) (wire.Response, error) {
	r := wire.Request{Kind: wire.Restore, Name: a.name, Method: method, Operation: operation}

	var err error
	if r.Item, err = text(input.Item); err != nil {
		return wire.Response{}, err
	}

	if r.ItemFromBackup, err = text(input.ItemFromBackup); err != nil {
		return wire.Response{}, err
	}

	if r.Owner, err = json.Marshal(input.Restore); err != nil {
		return wire.Response{}, err
	}

	return a.call(r)
}

func (a drivenRestore) AppliesTo() (velero.ResourceSelector, error) {
	response, err := a.ask(wire.AppliesTo, "", velero.RestoreItemActionExecuteInput{})

	return response.Selector, err
}

func (a drivenRestore) Execute(input *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	response, err := a.ask(wire.Execute, "", *input)
	if err != nil {
		return nil, err
	}

	updated, err := object(response.Item)

	return &velero.RestoreItemActionExecuteOutput{
		UpdatedItem: updated, AdditionalItems: response.Additional, OperationID: response.Operation,
		SkipRestore: response.Skip, WaitForAdditionalItems: response.Wait,
	}, err
}

func (a drivenRestore) Progress(operation string, restore *velerov1.Restore) (velero.OperationProgress, error) {
	response, err := a.ask(wire.Progress, operation, velero.RestoreItemActionExecuteInput{Restore: restore})

	return response.Progress, err
}

func (a drivenRestore) Cancel(operation string, restore *velerov1.Restore) error {
	_, err := a.ask(wire.Cancel, operation, velero.RestoreItemActionExecuteInput{Restore: restore})

	return err
}

func (a drivenRestore) AreAdditionalItemsReady(items []velero.ResourceIdentifier, restore *velerov1.Restore) (bool, error) {
	owner, err := json.Marshal(restore)
	if err != nil {
		return false, err
	}

	response, err := a.call(wire.Request{Kind: wire.Restore, Name: a.name, Method: wire.Ready, Additional: items, Owner: owner})

	return response.Ready, err
}

type drivenDelete struct {
	driven
	name string
}

func (a drivenDelete) AppliesTo() (velero.ResourceSelector, error) {
	response, err := a.call(wire.Request{Kind: wire.Delete, Name: a.name, Method: wire.AppliesTo})

	return response.Selector, err
}

func (a drivenDelete) Execute(input *velero.DeleteItemActionExecuteInput) error {
	item, err := text(input.Item)
	if err != nil {
		return err
	}

	owner, err := json.Marshal(input.Backup)
	if err != nil {
		return err
	}

	_, err = a.call(wire.Request{Kind: wire.Delete, Name: a.name, Method: wire.Execute, Item: item, Owner: owner})

	return err
}

func text(item runtime.Unstructured) (json.RawMessage, error) {
	if item == nil {
		return nil, nil
	}

	return json.Marshal(item.UnstructuredContent())
}

// object returns nil for no item, as Velero does.
func object(content json.RawMessage) (runtime.Unstructured, error) {
	if len(content) == 0 {
		return nil, nil
	}

	u := &unstructured.Unstructured{}

	return u, u.UnmarshalJSON(content)
}
