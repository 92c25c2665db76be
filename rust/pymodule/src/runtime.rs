//! Where Tokio meets asyncio: one lazy runtime per process, and one thread that brings results
//! back, so that no Tokio worker ever waits for the GIL.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

struct Runtime {
    tokio: tokio::runtime::Runtime,
    deliveries: Sender<Delivery>,
    process_id: u32,
}

/// Makes the result's Python object once the GIL is held.
type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// A result on its way to its event loop.
struct Delivery {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    outcome: Outcome,
}

/// Runs `work` on Tokio and gives an asyncio future of the running loop for its result, made
/// into a Python object by `convert`. Cancelling the future does not stop the work.
///
/// # Errors
/// RuntimeError without a running event loop, or in a child forked after the first use.
pub fn awaitable<'py, F, T>(
    py: Python<'py>,
    work: F,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let runtime = runtime(py)?;
    let event_loop = running_loop(py)?;
    let future = event_loop.call_method0("create_future")?;
    let (for_loop, for_future) = (event_loop.unbind(), future.clone().unbind());
    // Two tasks, so that a panic in the work still reaches whoever waits for it.
    let work = runtime.tokio.spawn(work);
    runtime.tokio.spawn(async move {
        let result = work.await;
        let delivery = Delivery {
            event_loop: for_loop,
            future: for_future,
            outcome: Box::new(move |py| match result {
                Ok(value) => convert(py, value),
                Err(_) => Err(PyRuntimeError::new_err("the core broke off; the outcome is not known")),
            }),
        };
        // The receiver only goes away with the interpreter.
        let _ = runtime.deliveries.send(delivery);
    });
    Ok(future)
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GET_RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()
}

/// The runtime of this process. Its threads do not survive a fork, and the connections of a
/// sender belong to it, so a child that inherited one is told instead of left hanging.
fn runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    // Without the GIL: another thread may be in here, and waiting for the GIL.
    let runtime = match RUNTIME.get() {
        Some(runtime) => runtime,
        None => py.detach(|| RUNTIME.get_or_init(start)),
    };
    if runtime.process_id != std::process::id() {
        return Err(PyRuntimeError::new_err("mailrail._core was used before this process was forked"));
    }
    Ok(runtime)
}

fn start() -> Runtime {
    let (deliveries, inbox) = channel();
    let tokio = tokio::runtime::Builder::new_multi_thread().thread_name("mailrail-core").enable_all().build();
    std::thread::Builder::new()
        .name("mailrail-deliver".into())
        .spawn(move || deliver_all(&inbox))
        .expect("a process can start a thread");
    Runtime { tokio: tokio.expect("a process can start threads"), deliveries, process_id: std::process::id() }
}

fn deliver_all(inbox: &Receiver<Delivery>) {
    while let Ok(first) = inbox.recv() {
        let delivered = Python::try_attach(|py| {
            first.deliver(py);
            // Whatever came in meanwhile shares this hold of the GIL.
            inbox.try_iter().for_each(|next| next.deliver(py));
        });
        if delivered.is_none() {
            // The interpreter is shutting down; nobody waits any more.
            return;
        }
    }
}

impl Delivery {
    fn deliver(self, py: Python<'_>) {
        // A closed loop refuses the call: nobody is left to hear it, and no outcome is guessed.
        let _ = self.try_deliver(py);
    }

    fn try_deliver(self, py: Python<'_>) -> PyResult<()> {
        let (value, error) = match (self.outcome)(py) {
            Ok(value) => (value, py.None()),
            Err(error) => (py.None(), error.into_value(py).into_any()),
        };
        let settle = pyo3::wrap_pyfunction!(settle, py)?;
        self.event_loop.bind(py).call_method1("call_soon_threadsafe", (settle, self.future, value, error))?;
        Ok(())
    }
}

/// Runs in the event loop's thread: gives the future its result unless it was cancelled.
#[pyfunction]
fn settle(future: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    if error.is_none() {
        future.call_method1("set_result", (value,))?;
    } else {
        future.call_method1("set_exception", (error,))?;
    }
    Ok(())
}
